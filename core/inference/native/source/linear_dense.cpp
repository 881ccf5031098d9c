// Matmuls with 16- or 32-bit weights in float32: tiles of 16 outputs, [inputs][16].
#include "linear_weights.h"

namespace bw::linear {
namespace {

constexpr int STRETCH = 512;

struct alignas(64) Panel {
  float steps[DENSE_TILES][STRETCH][LANES];
};

template <int WEIGHTS>
inline Floats weights_at(const void *data, int64_t at) {
  if constexpr (WEIGHTS == BW_F32) return load_floats(static_cast<const float *>(data) + at);
  if constexpr (WEIGHTS == BW_F16) return load_halves(static_cast<const uint16_t *>(data) + at);
  if constexpr (WEIGHTS == BW_BF16) return load_brains(static_cast<const uint16_t *>(data) + at);
}

// One to four rows: weights are read from memory once, with enough independent sums to hide the latency of additions.
template <int WEIGHTS, int R>
void few(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int last, int row) {
  constexpr int CHAINS = 4;  // divides the inputs, a multiple of 32
  for (; tile < last; tile++) {
    Floats f[R][CHAINS];
    for (int r = 0; r < R; r++) {
      for (int chain = 0; chain < CHAINS; chain++) f[r][chain] = set_floats(0);
    }
    const int64_t start = static_cast<int64_t>(tile) * w.in_features * LANES;
    const float *from = x.x + static_cast<int64_t>(row) * x.in_features;
    for (int k = 0; k < w.in_features; k += CHAINS) {
      for (int chain = 0; chain < CHAINS; chain++) {
        const Floats step = weights_at<WEIGHTS>(w.data.at, start + static_cast<int64_t>(k + chain) * LANES);
        for (int r = 0; r < R; r++) {
          f[r][chain] = fused(step, set_floats(from[static_cast<int64_t>(r) * x.in_features + k + chain]), f[r][chain]);
        }
      }
    }
    for (int r = 0; r < R; r++) {
      const Floats all = add(add(f[r][0], f[r][1]), add(f[r][2], f[r][3]));
      add_to(y + (row + r) * stride + tile * LANES, all, w.out_features - tile * LANES);
    }
  }
}

template <int R, int T>
void rows_by_tiles(const bw_activations &x, const Panel &panel, int k, int length, int row, float *y, int64_t stride,
                   int count) {
  Floats f[R][T];
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) f[r][t] = set_floats(0);
  }
  const float *from = x.x + static_cast<int64_t>(row) * x.in_features + k;
#pragma GCC unroll 4
  for (int i = 0; i < length; i++) {
    Floats step[T];
    for (int t = 0; t < T; t++) {
      step[t] = load_floats(panel.steps[t][i]);
      keep(step[t]);
    }
    for (int r = 0; r < R; r++) {
      const Floats one = set_floats(from[static_cast<int64_t>(r) * x.in_features + i]);
      for (int t = 0; t < T; t++) f[r][t] = fused(step[t], one, f[r][t]);
    }
  }
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < T; t++) add_to(y + (row + r) * stride + t * LANES, f[r][t], count - t * LANES);
  }
}

// Call the instance for `rows` rows, at most R.
template <int R, int T>
void choose_rows(int rows, const bw_activations &x, const Panel &panel, int k, int length, int row, float *y,
                 int64_t stride, int count) {
  if (rows == R) return rows_by_tiles<R, T>(x, panel, k, length, row, y, stride, count);
  if constexpr (R > 1) choose_rows<R - 1, T>(rows, x, panel, k, length, row, y, stride, count);
}

template <int WEIGHTS>
void many(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int last_tile, int first,
          int last) {
  Panel panel;
  for (; tile < last_tile; tile += DENSE_TILES) {
    const int beside = last_tile - tile < DENSE_TILES ? last_tile - tile : DENSE_TILES;
    const int count = w.out_features - tile * LANES;
    for (int k = 0; k < w.in_features; k += STRETCH) {
      const int length = w.in_features - k < STRETCH ? w.in_features - k : STRETCH;
      for (int t = 0; t < beside; t++) {
        const int64_t at = (static_cast<int64_t>(tile + t) * w.in_features + k) * LANES;
        for (int i = 0; i < length; i++) store_floats(panel.steps[t][i], weights_at<WEIGHTS>(w.data.at, at + i * LANES));
      }
      for (int row = first, share; row < last; row += share) {
        share = even_share(last - row, DENSE_ROWS);
        auto rows = beside == DENSE_TILES ? choose_rows<DENSE_ROWS, DENSE_TILES> : choose_rows<DENSE_ROWS, 1>;
        rows(share, x, panel, k, length, row, y + tile * LANES, stride, count);
      }
    }
  }
}

template <int WEIGHTS>
void rows_of(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int last_tile, int first,
             int last) {
  if (last - first > 4) return many<WEIGHTS>(w, x, y, stride, tile, last_tile, first, last);
  switch (last - first) {
    case 1: return few<WEIGHTS, 1>(w, x, y, stride, tile, last_tile, first);
    case 2: return few<WEIGHTS, 2>(w, x, y, stride, tile, last_tile, first);
    case 3: return few<WEIGHTS, 3>(w, x, y, stride, tile, last_tile, first);
    default: return few<WEIGHTS, 4>(w, x, y, stride, tile, last_tile, first);
  }
}

template <class T>
void pack(const bw_matrix &w, const T *from, T *to, int first, int last) {
  for (int tile = first; tile < last; tile++) {
    T *at = to + static_cast<int64_t>(tile) * w.in_features * LANES;
    const int count = w.out_features - tile * LANES < LANES ? w.out_features - tile * LANES : LANES;
    for (int k = 0; k < w.in_features; k += 32) {  // a cache line of each output at a time
      for (int lane = 0; lane < LANES; lane++) {
        const int64_t number = static_cast<int64_t>(tile - first) * LANES + lane;
        const T *row = lane < count ? from + number * w.in_features : nullptr;
        for (int i = k; i < k + 32; i++) at[i * LANES + lane] = row ? row[i] : T(0);
      }
    }
  }
}

}  // namespace

void dense_rows(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int last_tile,
                int first, int last) {
  switch (w.weights) {
    case BW_F32: return rows_of<BW_F32>(w, x, y, stride, tile, last_tile, first, last);
    case BW_F16: return rows_of<BW_F16>(w, x, y, stride, tile, last_tile, first, last);
    default: return rows_of<BW_BF16>(w, x, y, stride, tile, last_tile, first, last);
  }
}

void dense_row(const bw_matrix &w, int row, float *to) {
  const int64_t at = static_cast<int64_t>(row / LANES) * w.in_features * LANES + row % LANES;
  alignas(64) float one[LANES];
  for (int64_t k = 0; k < w.in_features; k++) {
    if (w.weights == BW_F32) {
      to[k] = static_cast<const float *>(w.data.at)[at + k * LANES];
      continue;
    }
    const uint16_t value = static_cast<const uint16_t *>(w.data.at)[at + k * LANES], line[LANES] = {value};
    store_floats(one, w.weights == BW_F16 ? load_halves(line) : load_brains(line));
    to[k] = one[0];
  }
}

void pack_dense(const bw_matrix &w, const void *weights, void *data, int first, int last) {
  if (w.weights == BW_F32) {
    return pack(w, static_cast<const uint32_t *>(weights), static_cast<uint32_t *>(data), first, last);
  }
  pack(w, static_cast<const uint16_t *>(weights), static_cast<uint16_t *>(data), first, last);
}

}  // namespace bw::linear
