// Whether what is given fits together, before anything of it is read or written.
#pragma once
#include <initializer_list>

#include "program.h"

namespace bw {

constexpr int32_t MAX_SIZE = 1 << 30;     // of one length, so that sums of a few fit in 32 bits
constexpr int32_t MAX_ROWS = 4096;        // of a step or a product
constexpr int32_t MAX_THREADS = 256;
constexpr int32_t MAX_KEY_SIZE = 8192;        // width of all keys of a token
constexpr int32_t MAX_QUERY_SIZE = 1 << 24;  // width of all queries of a token

// Whether `bytes` at `at` hold an array of these lengths, of items of so many bytes that are aligned.
int32_t check_memory(const void *at, int64_t bytes, std::initializer_list<int64_t> lengths, int64_t item, int64_t align);

template <class T>
int32_t check_memory(const bw_memory<T> &memory, std::initializer_list<int64_t> lengths) {
  return check_memory(memory.at, memory.bytes, lengths, sizeof(T), alignof(T));
}

// The same for memory whose kind of items is known at run time only.
inline int32_t check_memory(const bw_memory<const void> &memory, std::initializer_list<int64_t> lengths, int64_t item) {
  return check_memory(memory.at, memory.bytes, lengths, item, item);
}

// The numbers of a matrix and of activations alone.
int32_t check_sizes(const bw_matrix &w);
int32_t check_sizes(const bw_activations &x);
// With all memory behind them.
int32_t check_matrix(const bw_matrix &w);
int32_t check_activations(const bw_activations &x, int32_t rows);
int32_t check_product(const bw_matrix &w, const bw_activations &x, int32_t rows);
int32_t check_threads(int32_t threads);
// Whether an operation has the struct of its kind.
int32_t check_args(const bw_op &op);
// The lists of a program, which can be followed after that.
int32_t check_lists(const bw_program &program);
// All of a step that is about to be computed; the activations have their rows already.
int32_t check_step(const bw_program &program, const bw_step &step, int32_t tail_first, int32_t tail_rows);
// The numbers of heads alone.
int32_t check_sizes(const bw_attention &op);

}  // namespace bw
