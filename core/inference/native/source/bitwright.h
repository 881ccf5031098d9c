// The interface of the compiled kernels. Plain C, so that ctypes can call it; every struct is mirrored in Python.
#pragma once
#include <cstdint>

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
  const void *data;      // packed weights, 64-byte aligned
  const void *scale;     // [tiles][groups][16] f16 or s8
  const void *offset;    // [tiles][groups][16] u8 zero points, f16 or s8 minimums, or null
  const int32_t *order;  // [inputs] where the k-th packed input lies in x, or null
  const float *bias;     // [outputs] or null
  const void *steps;     // of BW_NESTED: [tiles][inputs / super][2][16] f16, what scales and minimums are multiples of
};

// Rows of activations as the linear kernels read them. Matrices of the same inputs, block, planes and order share one.
// Dense weights (block 0) read x only: planes 0, and no memory behind `values`.
struct bw_activations {
  const float *x;  // [rows][inputs] float32, in their own order
  int32_t rows, inputs;
  int32_t block;   // inputs that share a scale, 0: not quantized
  int32_t planes;
  int64_t stride;  // bytes from one plane of a row to the next
  int8_t *values;  // [rows][planes][stride], permuted where the matrix has an order
  float *scale;    // [rows][planes][inputs / block]
  float *sum;      // [rows][planes][inputs / block] scale times the sum of the block's values
  int32_t *total;  // [rows][planes][inputs / block] the sum of the block's values
};

extern "C" {
// Bytes (a multiple of 64) that rows of activations need, by `rows`, `inputs`, `block` and `planes`; 0 where block is 0.
int64_t bw_activation_bytes(const bw_activations *of);
// Give memory of so many bytes, 64-byte aligned, to `stride`, `values`, `scale`, `sum` and `total`.
void bw_place_activations(bw_activations *to, void *memory);
// Quantize rows [first, last) of to->x, read in `order` (or null).
void bw_quantize_rows(const bw_activations *to, const int32_t *order, int32_t first, int32_t last);

// In how many independent pieces y = x W^T + bias can be computed; pieces are about equally long.
int32_t bw_linear_tiles(const bw_matrix *w, int32_t rows);
// Compute one piece for all rows; y is [rows][stride] floats; add: to what is there.
void bw_linear_tile(const bw_matrix *w, const bw_activations *x, float *y, int64_t stride, int32_t add, int32_t tile);
// y [rows][outputs] = x W^T + bias as a whole, on the pool; x has its memory.
void bw_multiply(const bw_matrix *w, bw_activations *x, float *y, int32_t threads);

// One row of the matrix in float32, [inputs] in x's order: for embeddings that share their matrix with the head.
void bw_matrix_row(const bw_matrix *w, int32_t row, float *to);

// Bytes of w->data, by its weights, bits, outputs and inputs.
int64_t bw_data_bytes(const bw_matrix *w);
// Pack tiles [first, last) of integers [outputs][inputs], each below 2^bits, or of 16- or 32-bit floats, into `data`.
void bw_pack(const bw_matrix *w, const void *weights, void *data, int32_t first, int32_t last);
// Bits of the instruction sets that the kernels were compiled for: 1 AVX2, 2 AVX-512, 4 VNNI, 8 NEON.
int32_t bw_instructions(void);
}
