// Threads that stay: a team of them runs one function together and meets at barriers. Knows no operations.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace bw {

// One run of a function by several threads at once.
struct Team {
  alignas(128) std::atomic<int32_t> next{0};     // the next piece that nobody has claimed
  alignas(128) std::atomic<int32_t> arrived{0};  // threads that wait at the barrier
  alignas(128) std::atomic<uint32_t> phase{0};   // barriers passed
  alignas(128) std::atomic<int32_t> sleeping{0};  // threads that gave up their core at the barrier
  std::mutex mutex;                               // for sleeping and waking
  std::condition_variable wake;
  alignas(128) int32_t threads = 1;

  // Do the pieces [0, count), whoever comes first, `grain` at a time, and wait for each other.
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

  // Wait until every thread of the team is here: for a moment on the core, then asleep.
  void meet();
};

typedef void (*TeamWork)(void *what, Team *team, int32_t thread);

// Run `work` on `threads` threads, the caller being number 0; returns when all are through.
// One run at a time: a second caller waits. Never call it from within a run.
void run_team(int32_t threads, TeamWork work, void *what);

}  // namespace bw

extern "C" {
// Do work(what, piece) for each piece in [0, count) on so many threads.
void bw_parallel(int32_t threads, int32_t count, void (*work)(void *what, int32_t piece), void *what);
// Threads that exist besides the callers.
int32_t bw_pool_threads();
// End them; the next run makes new ones. For the end of the interpreter, and for tests.
void bw_pool_close();
// Nanoseconds that one barrier takes with so many threads, over so many of them.
double bw_barrier_time(int32_t threads, int32_t times);
}
