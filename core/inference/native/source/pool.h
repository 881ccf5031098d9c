// A persistent thread pool whose threads run one function together and synchronize at barriers.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace bw {

// The threads of one run.
struct Team {
  alignas(128) std::atomic<int32_t> next{0};     // the next unclaimed piece
  alignas(128) std::atomic<int32_t> arrived{0};  // threads that have reached the barrier
  alignas(128) std::atomic<uint32_t> phase{0};   // barriers passed
  alignas(128) std::atomic<int32_t> sleeping{0};  // threads that sleep at the barrier
  std::mutex mutex;                               // for sleeping and waking
  std::condition_variable wake;
  alignas(128) int32_t threads = 1;

  // Process pieces [0, count), claimed `grain` at a time by any thread, followed by a barrier.
  template <class Work>
  void share(int32_t count, int32_t grain, Work work) {
    for (;;) {
      const int32_t first = next.fetch_add(grain, std::memory_order_relaxed);
      if (first >= count) break;
      const int32_t last = first + grain < count ? first + grain : count;
      for (int32_t piece = first; piece < last; piece++) work(piece);
    }
    meet();
  }

  // Barrier: wait for all threads of the team, spinning at first and then sleeping.
  void meet();
};

typedef void (*TeamWork)(void *what, Team *team, int32_t thread);

// Run `work` on `threads` threads, the caller being number 0, and return when all have finished.
// One run at a time: a second caller waits. Must not be called from within a run.
void run_team(int32_t threads, TeamWork work, void *what);

}  // namespace bw

extern "C" {
// Call work(what, piece) for each piece in [0, count) on `threads` threads.
void bw_parallel(int32_t threads, int32_t count, void (*work)(void *what, int32_t piece), void *what);
// Return the number of threads of the pool, without the caller.
int32_t bw_pool_threads();
// End the threads; the next run starts new ones. For the end of the interpreter and for tests.
void bw_pool_close();
// Return the nanoseconds of one barrier, measured over `times` barriers.
double bw_barrier_time(int32_t threads, int32_t times);
}
