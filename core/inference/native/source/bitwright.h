// The C interface of the compiled kernels, called through ctypes. Every struct is mirrored in Python.
//
// All memory comes with its length. Every function validates its arguments before it reads or writes anything and
// returns a bw_error if they are invalid.
#pragma once
#include <cstdint>

enum bw_error : int32_t {
  BW_DONE = 0,
  BW_STOPPED = 1,
  BW_BAD_VALUE = -1,     // a size, a kind or another number is out of range
  BW_BAD_POINTER = -2,   // memory is null or misaligned
  BW_TOO_SHORT = -3,     // memory is shorter than its shape
  BW_BAD_SHAPE = -4,     // two shapes do not match
  BW_BAD_ORDER = -5,     // an input order has an index out of range
  BW_BAD_TOKEN = -6,     // a token is outside of the vocabulary
  BW_BAD_POSITION = -7,  // a token is beyond the end of the cache or of a RoPE table
};

// A pointer to `bytes` of memory, or null.
template <class T>
struct bw_memory {
  T *at;
  int64_t bytes;
  operator T *() const { return at; }
};

enum bw_weights : int32_t { BW_F32 = 0, BW_BF16 = 1, BW_F16 = 2, BW_GRID = 3 };
enum bw_scales : int32_t {
  BW_SYMMETRIC = 0,  // f16 scale per group; `zero` is the zero point of all groups
  BW_ZEROS = 1,      // f16 scale and u8 zero point per group
  BW_MINIMUMS = 2,   // f16 scale and f16 minimum per group: w = scale * q + minimum
  // s8 scale per group times an f16 per super-block; with s8 minimums, which are subtracted, or `zero`
  BW_NESTED = 3,
};

// One weight matrix [out_features, in_features], in tiles of 16 outputs (the last one padded with zeros).
struct bw_matrix {
  int32_t weights;  // bw_weights
  int32_t bits;     // of BW_GRID: 2, 3, 4, 5, 6 or 8
  int32_t scales;   // bw_scales
  int32_t zero;     // of BW_SYMMETRIC
  int32_t out_features, in_features;
  int32_t group_size;    // inputs that share a scale; the last group may be shorter
  int32_t block;         // inputs that share a scale of the activations; a divisor of group_size; 0: dense
  int32_t planes;        // int8 planes of the activations: 1 (8 bits) or 2 (about 15 bits)
  int32_t super_block_size;  // of BW_NESTED: a multiple of `group_size` that divides `in_features`
  bw_memory<void> data;           // packed weights, 64-byte aligned
  bw_memory<const void> scale;    // [tiles][groups][16] f16 or s8
  bw_memory<const void> offset;   // [tiles][groups][16] u8 zero points, f16 or s8 minimums, or null
  bw_memory<const int32_t> order; // [in_features] index in x of the k-th packed input (act-order), or null
  bw_memory<const float> bias;    // [out_features] or null
  // of BW_NESTED: [tiles][in_features / super_block_size][2][16] f16, the units of `scale` and `offset`
  bw_memory<const void> steps;
};

// Rows of activations for the linear kernels. Matrices with the same in_features, block, planes and order share one.
// Dense weights (block 0) read x only: planes is 0, and all fields from `values` on are null.
struct bw_activations {
  bw_memory<const float> x;  // [rows][in_features] float32, in the original order
  int32_t rows, in_features;
  int32_t block;   // inputs that share a scale; 0: not quantized
  int32_t planes;
  int64_t stride;             // bytes from one plane of a row to the next
  bw_memory<int8_t> values;   // [rows][planes][stride], in the order of the matrix
  bw_memory<float> scale;     // [rows][planes][in_features / block]
  bw_memory<float> sum;       // [rows][planes][in_features / block] scale times the sum of the block's values
  bw_memory<int32_t> total;   // [rows][planes][in_features / block] the sum of the block's values
};

extern "C" {
// Return the bytes, a multiple of 64, that activations need for their `rows`, `in_features`, `block` and `planes`; 0 if
// `block` is 0. A bw_error if these are invalid.
int64_t bw_activation_bytes(const bw_activations *of);
// Set `stride`, and point `values`, `scale`, `sum` and `total` to 64-byte aligned memory.
int32_t bw_place_activations(bw_activations *to, void *memory, int64_t bytes);

// Compute y [rows][out_features] = x W^T + bias on the thread pool; x has been placed.
int32_t bw_multiply(const bw_matrix *w, bw_activations *x, float *y, int64_t bytes, int32_t threads);

// Dequantize one row of the matrix to float32 [in_features], in the original order: for tied embeddings.
int32_t bw_matrix_row(const bw_matrix *w, int32_t row, float *to, int64_t bytes);

// Return the bytes of w->data for its weights, bits, out_features and in_features; a bw_error if these are invalid.
int64_t bw_data_bytes(const bw_matrix *w);
// Pack rows [first, first + rows) of the matrix into w->data: [rows][in_features] of integers below 2^bits, or of
// 16- or 32-bit floats. A call packs whole tiles of 16 rows, except at the end; large matrices are packed in pieces.
int32_t bw_pack(const bw_matrix *w, const void *weights, int64_t bytes, int32_t first, int32_t rows);
// Return the instruction sets that the kernels were compiled for, as bits: 1 AVX2, 2 AVX-512, 4 VNNI, 8 NEON.
int32_t bw_instructions(void);
// Return the meaning of a bw_error as a part of a sentence.
const char *bw_reason(int32_t error);
}
