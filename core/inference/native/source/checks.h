// Validation of all arguments before anything is read or written. All functions return a bw_error.
#pragma once
#include <initializer_list>

#include "program.h"

namespace bw {

constexpr int32_t MAX_SIZE = 1 << 30;     // of one dimension; sums of a few fit in 32 bits
constexpr int32_t MAX_ROWS = 4096;        // of a step or a matmul
constexpr int32_t MAX_THREADS = 256;
constexpr int32_t MAX_KEY_SIZE = 8192;        // components of all keys of a token
constexpr int32_t MAX_QUERY_SIZE = 1 << 24;  // components of all queries of a token

// Check that `bytes` at `at` hold an array of these dimensions, with items of `item` bytes aligned to `align`.
int32_t check_memory(const void *at, int64_t bytes, std::initializer_list<int64_t> lengths, int64_t item,
                     int64_t align);

template <class T>
int32_t check_memory(const bw_memory<T> &memory, std::initializer_list<int64_t> lengths) {
  return check_memory(memory.at, memory.bytes, lengths, sizeof(T), alignof(T));
}

// The same for memory whose item size is known at run time only.
inline int32_t check_memory(const bw_memory<const void> &memory, std::initializer_list<int64_t> lengths, int64_t item) {
  return check_memory(memory.at, memory.bytes, lengths, item, item);
}

// Check the numbers of a matrix or of activations, without their memory.
int32_t check_sizes(const bw_matrix &w);
int32_t check_sizes(const bw_activations &x);
// Check the numbers and the memory.
int32_t check_matrix(const bw_matrix &w);
int32_t check_activations(const bw_activations &x, int32_t rows);
int32_t check_product(const bw_matrix &w, const bw_activations &x, int32_t rows);
int32_t check_threads(int32_t threads);
// Check that an operation has the arguments of its kind.
int32_t check_args(const bw_op &op);
// Check the lists of a program; its pointers may be followed afterwards.
int32_t check_lists(const bw_program &program);
// Check a step; the rows of the activations have been set.
int32_t check_step(const bw_program &program, const bw_step &step, int32_t first_logit_row, int32_t logit_rows);
// Check the numbers of attention arguments, without their memory.
int32_t check_sizes(const bw_attention &op);

}  // namespace bw
