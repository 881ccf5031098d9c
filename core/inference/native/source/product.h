// Small float32 matrix products on scratch in the L1 cache: C [rows][n] = or += A [rows][k] B [k][n].
#pragma once
#include "simd.h"

namespace bw {

#if defined(__AVX512F__)
constexpr int PRODUCT_ROWS = 6;
constexpr int PRODUCT_COLUMNS = 4;
#else
constexpr int PRODUCT_ROWS = 4;
constexpr int PRODUCT_COLUMNS = 2;
#endif

// R rows and C registers of columns, kept in registers over all of k.
template <int R, int C>
static inline void product_block(int k, const float *a, int64_t a_stride, const float *b, int64_t b_stride, float *c,
                                 int64_t c_stride, bool add) {
  vf total[R][C];
  for (int r = 0; r < R; r++) {
    for (int j = 0; j < C; j++) total[r][j] = add ? load(c + r * c_stride + j * LANES) : vf{};
  }
  for (int i = 0; i < k; i++) {
    vf column[C];
    for (int j = 0; j < C; j++) column[j] = load(b + i * b_stride + j * LANES);
    for (int r = 0; r < R; r++) {
      const vf value = splat(a[r * a_stride + i]);
      for (int j = 0; j < C; j++) total[r][j] += value * column[j];
    }
  }
  for (int r = 0; r < R; r++) {
    for (int j = 0; j < C; j++) store(c + r * c_stride + j * LANES, total[r][j]);
  }
}

template <int C>
static inline void product_columns(int rows, int k, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                                   float *c, int64_t c_stride, bool add) {
  int r = 0;
  for (; r + PRODUCT_ROWS <= rows; r += PRODUCT_ROWS) {
    product_block<PRODUCT_ROWS, C>(k, a + r * a_stride, a_stride, b, b_stride, c + r * c_stride, c_stride, add);
  }
  a += r * a_stride;
  c += r * c_stride;
  switch (rows - r) {
    case 1: product_block<1, C>(k, a, a_stride, b, b_stride, c, c_stride, add); break;
    case 2: product_block<2, C>(k, a, a_stride, b, b_stride, c, c_stride, add); break;
    case 3: product_block<3, C>(k, a, a_stride, b, b_stride, c, c_stride, add); break;
#if defined(__AVX512F__)
    case 4: product_block<4, C>(k, a, a_stride, b, b_stride, c, c_stride, add); break;
    case 5: product_block<5, C>(k, a, a_stride, b, b_stride, c, c_stride, add); break;
#endif
    default: break;
  }
}

// n is a multiple of LANES.
static inline void product(int rows, int n, int k, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                           float *c, int64_t c_stride, bool add) {
  int j = 0;
  for (; j + PRODUCT_COLUMNS * LANES <= n; j += PRODUCT_COLUMNS * LANES) {
    product_columns<PRODUCT_COLUMNS>(rows, k, a, a_stride, b + j, b_stride, c + j, c_stride, add);
  }
  for (; j < n; j += LANES) product_columns<1>(rows, k, a, a_stride, b + j, b_stride, c + j, c_stride, add);
}

static inline vf load_as_floats(const float *from) { return load(from); }

static inline vf load_as_floats(const uint16_t *from) { return load_halves(from); }

// The same for few rows, reading B (floats or halves in the layout of the KV cache) in place: register j of columns
// begins at b + j % WITHIN * LANES + j / WITHIN * b_apart.
template <int R, int C, int WITHIN, class Number>
static inline void direct_block(int k, const float *a, int64_t a_stride, const Number *b, int64_t b_stride,
                                int64_t b_apart, float *c, int64_t c_stride, bool add) {
  vf total[R][C];
  for (int r = 0; r < R; r++) {
    for (int j = 0; j < C; j++) total[r][j] = add ? load(c + r * c_stride + j * LANES) : vf{};
  }
  for (int i = 0; i < k; i++) {
    vf column[C];
    for (int j = 0; j < C; j++) {
      column[j] = load_as_floats(b + i * b_stride + j % WITHIN * LANES + j / WITHIN * b_apart);
    }
    for (int r = 0; r < R; r++) {
      const vf value = splat(a[r * a_stride + i]);
      for (int j = 0; j < C; j++) total[r][j] += value * column[j];
    }
  }
  for (int r = 0; r < R; r++) {
    for (int j = 0; j < C; j++) store(c + r * c_stride + j * LANES, total[r][j]);
  }
}

}  // namespace bw
