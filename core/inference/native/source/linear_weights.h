// The layout of packed weights. One step is 4 inputs of the 16 outputs of a tile, 64 bytes unpacked.
//
//   8 bits  64 bytes a step
//   4 bits  64 bytes for two steps: the first in the low nibbles
//   2 bits  64 bytes for four steps, from the lowest bits on
//   3 bits  192 bytes for eight steps: the two low bits as above, four steps and four steps, then the high bits of all
//   5 bits  320 bytes for eight steps: the four low bits as above, two steps at a time, then the high bits of all
//   6 bits  192 bytes for four steps: the four low bits as above, then the two high bits of all
//
// Tiles follow each other; inputs are whole blocks of 16 or 32, which take 4 or 8 steps.
#pragma once
#include <utility>

#include "bitwright.h"
#include "linear_lanes.h"

namespace bw::linear {

// Return the bytes of a number of steps.
constexpr int64_t bytes_of(int bits, int64_t steps) { return steps * 8 * bits; }

inline int64_t tile_bytes(const bw_matrix &w) { return bytes_of(w.bits, w.in_features / 4); }
inline int tiles_of(const bw_matrix &w) { return (w.out_features + LANES - 1) / LANES; }
inline int groups_of(const bw_matrix &w) { return (w.in_features + w.group_size - 1) / w.group_size; }

inline const uint8_t *tile_at(const bw_matrix &w, int tile) {
  return static_cast<const uint8_t *>(w.data.at) + tile * tile_bytes(w);
}

// Load step I of a block that begins at `from`.
template <int BITS, int I>
inline Bytes step_of(const uint8_t *from) {
  if constexpr (BITS == 8) return load_bytes(from + 64 * I);
  if constexpr (BITS == 4) return bits_of<I % 2 * 4, 15>(load_bytes(from + 64 * (I / 2)));
  if constexpr (BITS == 2) return bits_of<I % 4 * 2, 3>(load_bytes(from + 64 * (I / 4)));
  if constexpr (BITS == 3) {
    return either(bits_of<I % 4 * 2, 3>(load_bytes(from + 64 * (I / 4))), bits_of<I - 2, 4>(load_bytes(from + 128)));
  }
  if constexpr (BITS == 5) {
    return either(bits_of<I % 2 * 4, 15>(load_bytes(from + 64 * (I / 2))), bits_of<I - 4, 16>(load_bytes(from + 256)));
  }
  if constexpr (BITS == 6) {
    const uint8_t *four = from + 192 * (I / 4);
    constexpr int i = I % 4;
    const Bytes high = bits_of<i * 2 - 4, 48>(load_bytes(four + 128));
    return either(bits_of<i % 2 * 4, 15>(load_bytes(four + 64 * (i / 2))), high);
  }
}

// Call f(constant I) for each I below COUNT, unrolled.
template <class F, int... I>
inline __attribute__((always_inline)) void each_of(F f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>{}), ...);
}
template <int COUNT, class F>
inline __attribute__((always_inline)) void each(F f) {
  each_of(f, std::make_integer_sequence<int, COUNT>{});
}

// Scale and offset of one group of a tile: weight = scale * (integer in `dot`) + offset.
struct Grid {
  Floats scale, offset;
};

template <int BITS>
inline Grid grid_of(const bw_matrix &w, int64_t tile, int64_t group) {
  const int64_t at = (tile * groups_of(w) + group) * LANES;
  if (w.scales == BW_MINIMUMS) {
    const Floats scale = load_halves(static_cast<const uint16_t *>(w.scale.at) + at);
    const Floats low = load_halves(static_cast<const uint16_t *>(w.offset.at) + at);
    return {scale, taken_off<BITS>() ? fused(scale, set_floats(taken_off<BITS>()), low) : low};
  }
  if (w.scales == BW_NESTED) {
    const int64_t super = tile * (w.in_features / w.super_block_size) + group * w.group_size / w.super_block_size;
    const uint16_t *steps = static_cast<const uint16_t *>(w.steps.at) + super * 2 * LANES;
    const Floats scale = multiply(load_halves(steps), load_signed(static_cast<const int8_t *>(w.scale.at) + at));
    if (!w.offset) return {scale, multiply(scale, set_floats(static_cast<float>(taken_off<BITS>() - w.zero)))};
    const Floats low = multiply(load_halves(steps + LANES), load_signed(static_cast<const int8_t *>(w.offset.at) + at));
    return {scale, fused(low, set_floats(-1.0f), multiply(scale, set_floats(taken_off<BITS>())))};
  }
  const Floats scale = load_halves(static_cast<const uint16_t *>(w.scale.at) + at);
  if (w.scales == BW_SYMMETRIC) {
    return {scale, multiply(scale, set_floats(static_cast<float>(taken_off<BITS>() - w.zero)))};
  }
  const Floats zero = load_small(static_cast<const uint8_t *>(w.offset.at) + at);
  return {scale, multiply(scale, fused(zero, set_floats(-1.0f), set_floats(taken_off<BITS>())))};
}

// Add sixteen sums to y, of which `count` are outputs of the matrix.
inline void add_to(float *y, Floats sums, int count) {
  if (count >= LANES) {
    store_floats(y, add(load_floats(y), sums));
  } else {
    store_some(y, add(load_some(y, count), sums), count);
  }
}

// Return the number of rows to process next of `left` if at most `most` fit, in even shares: 7 as 4 and 3, not 6 and 1.
inline int even_share(int left, int most) {
  const int pieces = (left + most - 1) / most;
  return (left + pieces - 1) / pieces;
}

// Return the number of independent pieces of y = x W^T + bias; all take about the same time.
int32_t pieces_of(const bw_matrix &w, int32_t rows);
// Compute one piece of y, [rows][stride] floats; with `add`, add to y.
void compute_piece(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, bool add, int32_t piece);
// Quantize rows [first, last) of to.x, reading the inputs in `order` (or null).
void quantize_rows(const bw_activations &to, const int32_t *order, int32_t first, int32_t last);
void row_of(const bw_matrix &w, int32_t row, float *to);
// Return the bytes of the weights of one tile of a validated matrix.
int64_t bytes_of_tile(const bw_matrix &w);

// Kernels for packed and for dense weights: add tiles [tile, last_tile) x rows [first, last) to y.
void grid_rows(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int last_tile,
               int first, int last);
void dense_rows(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int last_tile,
                int first, int last);

void grid_row(const bw_matrix &w, int row, float *to);
void dense_row(const bw_matrix &w, int row, float *to);
// Pack tiles [first, last) from integers or floats that begin with the rows of tile `first`.
void pack_grid(const bw_matrix &w, const uint8_t *ints, uint8_t *data, int first, int last);
void pack_dense(const bw_matrix &w, const void *weights, void *data, int first, int last);

}  // namespace bw::linear
