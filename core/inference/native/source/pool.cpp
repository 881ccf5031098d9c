#include "pool.h"

#include "checks.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#endif

namespace bw {
namespace {

// Time that a thread spins before it sleeps. Within a run the other threads are microseconds behind, unless another
// program takes their core; then they mostly need ours. Yielding with sched_yield instead gives up the time slice:
// a fair scheduler puts the yielding thread behind all others at every barrier, and the program gets a fraction of its
// share (see ggml-org/llama.cpp#2134 and #13079). Between two runs (tokens) waking a sleeping thread takes long.
constexpr auto SPIN_IN_RUN = std::chrono::microseconds(30);
constexpr auto SPIN_BETWEEN_RUNS = std::chrono::microseconds(60);

constexpr int BITS = 12;
constexpr uint64_t THREADS = (1 << BITS) - 1;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spin until `done` or a timeout; return whether it is done.
template <class Done>
bool spin(std::chrono::microseconds time, Done done) {
  const auto until = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < 64; i++) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  return false;
}

struct Pool {
  std::mutex running;  // held for a whole run
  std::mutex mutex;    // for sleeping and waking
  std::condition_variable wake;
  std::vector<std::thread> threads;
  // Number of the run in the high bits, its threads in the low ones. They are read together, so that a thread that does
  // not take part in a run cannot mistake the next run for it.
  std::atomic<uint64_t> run{0};
  std::atomic<int32_t> sleeping{0};
  std::atomic<bool> closing{false};
  Team team;
  TeamWork work = nullptr;
  void *what = nullptr;

  void loop(int32_t thread, uint64_t seen) {
    for (;;) {
      seen = next(seen);
      if (closing) return;
      if (thread < (int32_t)(seen & THREADS)) {
        work(what, &team, thread);
        team.meet();
      }
    }
  }

  // Wait for a run after `seen`.
  uint64_t next(uint64_t seen) {
    uint64_t now;
    if (spin(SPIN_BETWEEN_RUNS, [&] { return (now = run.load(std::memory_order_acquire)) != seen; })) return now;
    std::unique_lock<std::mutex> lock(mutex);
    sleeping++;  // set before the test below; the caller tests it after it has begun a run, so one sees the other
    wake.wait(lock, [&] { return (now = run.load()) != seen; });
    sleeping--;
    return now;
  }

  void begin(int32_t threads) {
    run.store(((run.load() >> BITS) + 1) << BITS | (uint64_t)threads);
    if (sleeping.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
  }

  // Start threads until there are `count`, or as many as the system allows.
  void grow(int32_t count) {
    try {
      while ((int32_t)threads.size() < count) {
        const int32_t thread = (int32_t)threads.size() + 1;
        const uint64_t seen = run.load();
        threads.emplace_back([this, thread, seen] { loop(thread, seen); });
      }
    } catch (const std::system_error &) {
    }
  }

  void close() {
    std::lock_guard<std::mutex> one(running);
    closing = true;
    begin(0);
    for (auto &thread : threads) thread.join();
    threads.clear();
    closing = false;
  }
};

// Never destroyed: threads may still wait in it when the process ends.
Pool *pool = nullptr;
std::mutex making;

#if defined(__unix__) || defined(__APPLE__)
// A forked child does not inherit threads: it starts with a new pool and leaks the old one.
void forget() {
  pool = nullptr;
  new (&making) std::mutex;
}
#endif

Pool *the_pool() {
  std::lock_guard<std::mutex> lock(making);
  if (!pool) {
#if defined(__unix__) || defined(__APPLE__)
    static bool told = false;
    if (!told) pthread_atfork(nullptr, nullptr, forget);
    told = true;
#endif
    pool = new Pool;
  }
  return pool;
}

// New threads block all signals, which the interpreter handles.
void grow_quietly(Pool *pool, int32_t count) {
#if defined(__unix__) || defined(__APPLE__)
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pool->grow(count);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
#else
  pool->grow(count);
#endif
}

}  // namespace

void Team::meet() {
  const uint32_t now = phase.load(std::memory_order_relaxed);
  // Read before this thread counts as arrived: after the last barrier of a run, the next run may change it.
  const int32_t all = threads;
  if (arrived.fetch_add(1, std::memory_order_acq_rel) == all - 1) {
    next.store(0, std::memory_order_relaxed);
    arrived.store(0, std::memory_order_relaxed);
    phase.store(now + 1);
    if (sleeping.load() > 0) {
      { std::lock_guard<std::mutex> lock(mutex); }  // threads that have not seen the new phase are waiting by now
      wake.notify_all();
    }
    return;
  }
  if (spin(SPIN_IN_RUN, [&] { return phase.load(std::memory_order_acquire) != now; })) return;
  std::unique_lock<std::mutex> lock(mutex);
  sleeping++;  // set before the test below, as in Pool::next
  wake.wait(lock, [&] { return phase.load() != now; });
  sleeping--;
}

void run_team(int32_t threads, TeamWork work, void *what) {
  Pool *pool = the_pool();
  std::lock_guard<std::mutex> one(pool->running);
  threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
  grow_quietly(pool, threads - 1);
  if (threads > (int32_t)pool->threads.size() + 1) threads = (int32_t)pool->threads.size() + 1;
  pool->work = work;
  pool->what = what;
  pool->team.threads = threads;
  if (threads > 1) pool->begin(threads);
  work(what, &pool->team, 0);
  pool->team.meet();
}

}  // namespace bw

extern "C" {

void bw_parallel(int32_t threads, int32_t count, void (*work)(void *, int32_t), void *what) {
  struct Job {
    int32_t count;
    void (*work)(void *, int32_t);
    void *what;
  } job{count, work, what};
  bw::run_team(
      threads < count ? threads : count > 0 ? count : 1,
      [](void *given, bw::Team *team, int32_t) {
        const Job *job = (const Job *)given;
        team->share(job->count, 1, [&](int32_t piece) { job->work(job->what, piece); });
      },
      &job);
}

int32_t bw_pool_threads() { return (int32_t)bw::the_pool()->threads.size(); }

void bw_pool_close() { bw::the_pool()->close(); }

double bw_barrier_time(int32_t threads, int32_t times) {
  const auto began = std::chrono::steady_clock::now();
  bw::run_team(
      threads,
      [](void *given, bw::Team *team, int32_t) {
        for (int32_t i = 0; i < *(int32_t *)given; i++) team->meet();
      },
      &times);
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - began).count() / times;
}
}
