// The interface of the compiled kernels: plain structs, so that ctypes can call it; every struct is mirrored in Python.
//
// All memory comes with its length. Whoever calls these functions has checked shapes before; they check again, before
// anything is read or written, and return one of bw_error where something does not fit.
#pragma once
#include <cstdint>

enum bw_error : int32_t {
  BW_DONE = 0,
  BW_STOPPED = 1,
  BW_BAD_VALUE = -1,     // a size, a kind or another number is none that there can be
  BW_BAD_POINTER = -2,   // memory is missing, or not aligned for what it holds
  BW_TOO_SHORT = -3,     // memory is shorter than its shape
  BW_BAD_SHAPE = -4,     // two shapes do not belong together
  BW_BAD_ORDER = -5,     // an order names an input that there is not
  BW_BAD_TOKEN = -6,     // a token is outside of the vocabulary
  BW_BAD_POSITION = -7,  // a token lies behind the end of the cache or of a table
};

// `bytes` of memory; null where there is none.
template <class T>
struct bw_memory {
  T *at;
  int64_t bytes;
  operator T *() const { return at; }
};

enum bw_weights : int32_t { BW_F32 = 0, BW_BF16 = 1, BW_F16 = 2, BW_GRID = 3 };
enum bw_scales : int32_t {
  BW_SYMMETRIC = 0,  // f16 scale, the zero point is `zero` everywhere
  BW_ZEROS = 1,      // f16 scale and u8 zero point per group
  BW_MINIMUMS = 2,   // f16 scale and f16 minimum per group: w = scale * q + minimum
  BW_NESTED = 3,     // s8 scale per group times the f16 of `super` inputs; and s8 minimums, subtracted, or `zero`
};

// One weight matrix [outputs, inputs], in tiles of 16 outputs (the last one padded with zeros).
struct bw_matrix {
  int32_t weights;  // bw_weights
  int32_t bits;     // 2, 3, 4, 5, 6, 8 of a grid
  int32_t scales;   // bw_scales
  int32_t zero;     // of BW_SYMMETRIC
  int32_t outputs, inputs;
  int32_t group;         // inputs that share a scale; the last group may be shorter
  int32_t block;         // inputs of the activations that share a scale: divides group and inputs; 0 of dense weights
  int32_t planes;        // int8 planes that the activations should have: 1 (8 bits) or 2 (about 15 bits)
  int32_t super;         // of BW_NESTED: a multiple of the group that divides the inputs
  bw_memory<void> data;           // packed weights, 64-byte aligned
  bw_memory<const void> scale;    // [tiles][groups][16] f16 or s8
  bw_memory<const void> offset;   // [tiles][groups][16] u8 zero points, f16 or s8 minimums, or null
  bw_memory<const int32_t> order; // [inputs] where the k-th packed input lies in x, or null
  bw_memory<const float> bias;    // [outputs] or null
  bw_memory<const void> steps;    // of BW_NESTED: [tiles][inputs / super][2][16] f16, what the others are multiples of
};

// Rows of activations as the linear kernels read them. Matrices of the same inputs, block, planes and order share one.
// Dense weights (block 0) read x only: planes 0, and no memory behind `values`.
struct bw_activations {
  bw_memory<const float> x;  // [rows][inputs] float32, in their own order
  int32_t rows, inputs;
  int32_t block;   // inputs that share a scale, 0: not quantized
  int32_t planes;
  int64_t stride;             // bytes from one plane of a row to the next
  bw_memory<int8_t> values;   // [rows][planes][stride], permuted where the matrix has an order
  bw_memory<float> scale;     // [rows][planes][inputs / block]
  bw_memory<float> sum;       // [rows][planes][inputs / block] scale times the sum of the block's values
  bw_memory<int32_t> total;   // [rows][planes][inputs / block] the sum of the block's values
};

extern "C" {
// Bytes (a multiple of 64) that rows of activations need, by `rows`, `inputs`, `block` and `planes`; 0 where block is 0.
// A bw_error where there are no such activations.
int64_t bw_activation_bytes(const bw_activations *of);
// Give memory, 64-byte aligned, to `stride`, `values`, `scale`, `sum` and `total`.
int32_t bw_place_activations(bw_activations *to, void *memory, int64_t bytes);

// y [rows][outputs] = x W^T + bias as a whole, on the pool; x has its memory.
int32_t bw_multiply(const bw_matrix *w, bw_activations *x, float *y, int64_t bytes, int32_t threads);

// One row of the matrix in float32, [inputs] in x's order: for embeddings that share their matrix with the head.
int32_t bw_matrix_row(const bw_matrix *w, int32_t row, float *to, int64_t bytes);

// Bytes of w->data, by its weights, bits, outputs and inputs; a bw_error where there is no such matrix.
int64_t bw_data_bytes(const bw_matrix *w);
// Pack integers [rows][inputs], each below 2^bits, or 16- or 32-bit floats, into w->data: rows [first, first + rows) of
// the matrix, whole tiles of 16 but for the last one, so that a large one need not be there as a whole.
int32_t bw_pack(const bw_matrix *w, const void *weights, int64_t bytes, int32_t first, int32_t rows);
// Bits of the instruction sets that the kernels were compiled for: 1 AVX2, 2 AVX-512, 4 VNNI, 8 NEON.
int32_t bw_instructions(void);
// What a bw_error means, as a part of a sentence.
const char *bw_reason(int32_t error);
}
