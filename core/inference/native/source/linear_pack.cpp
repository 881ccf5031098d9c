// Packing of integers (one byte each, row by row) into tiles, and unpacking of single rows.
#include "linear_weights.h"

namespace bw::linear {
namespace {

// The place of some bits of a step: bits [low, low + bits) of the integers at bit `shift` of 64 bytes.
struct Place {
  int byte, shift, low, bits;
};

// Write the places of step `i` of a run and return their number.
int places_of(int bits, int i, Place (&places)[2]) {
  if (bits == 3) {
    places[0] = {64 * (i / 4), i % 4 * 2, 0, 2};
    places[1] = {128, i, 2, 1};
    return 2;
  }
  if (bits == 5) {
    places[0] = {64 * (i / 2), i % 2 * 4, 0, 4};
    places[1] = {256, i, 4, 1};
    return 2;
  }
  if (bits == 6) {
    places[0] = {i / 4 * 192 + 64 * (i % 4 / 2), i % 2 * 4, 0, 4};
    places[1] = {i / 4 * 192 + 128, i % 4 * 2, 4, 2};
    return 2;
  }
  const int steps = 8 / bits;
  places[0] = {64 * (i / steps), i % steps * bits, 0, bits};
  return 1;
}

}  // namespace

void pack_grid(const bw_matrix &w, const uint8_t *ints, uint8_t *data, int first, int last) {
  const int run = w.block == 16 ? 4 : 8;
  for (int tile = first; tile < last; tile++) {
    uint8_t *to = data + tile * tile_bytes(w);
    const int count = w.out_features - tile * LANES < LANES ? w.out_features - tile * LANES : LANES;
    const uint8_t *from = ints + static_cast<int64_t>(tile - first) * LANES * w.in_features;
    for (int k = 0; k < w.in_features; k += run * 4, to += bytes_of(w.bits, run)) {
      memset(to, 0, bytes_of(w.bits, run));
      for (int i = 0; i < run; i++) {
        uint8_t step[64] = {};
        for (int lane = 0; lane < count; lane++) {
          const uint8_t *row = from + static_cast<int64_t>(lane) * w.in_features;
          if (!w.order) {
            memcpy(step + lane * 4, row + k + i * 4, 4);
            continue;
          }
          for (int j = 0; j < 4; j++) step[lane * 4 + j] = row[w.order[k + i * 4 + j]];
        }
        Place places[2];
        for (int number = places_of(w.bits, i, places); number-- > 0;) {
          const Place at = places[number];
          const uint8_t mask = static_cast<uint8_t>((1 << at.bits) - 1);
          for (int j = 0; j < 64; j++) to[at.byte + j] |= static_cast<uint8_t>((step[j] >> at.low & mask) << at.shift);
        }
      }
    }
  }
}

void grid_row(const bw_matrix &w, int row, float *to) {
  const int lane = row % LANES, tile = row / LANES, run = w.block == 16 ? 4 : 8;
  const bool minimums = w.scales == BW_MINIMUMS || (w.scales == BW_NESTED && w.offset);
  alignas(64) float scale[LANES], offset[LANES];
  for (int k = 0; k < w.in_features; k++) {
    if (k % w.group_size == 0) {  // without SHIFT: integers as they are stored
      const Grid grid = grid_of<4>(w, tile, k / w.group_size);
      store_floats(scale, grid.scale);
      store_floats(offset, grid.offset);
    }
    const int step = k / 4;
    const uint8_t *from = tile_at(w, tile) + bytes_of(w.bits, step / run * run);
    Place places[2];
    int value = 0;
    for (int number = places_of(w.bits, step % run, places); number-- > 0;) {
      const Place at = places[number];
      value |= (from[at.byte + lane * 4 + k % 4] >> at.shift & ((1 << at.bits) - 1)) << at.low;
    }
    float &number = to[w.order ? w.order[k] : k];
    if (minimums) {
      number = scale[lane] * static_cast<float>(value) + offset[lane];
      continue;
    }
    // The zero point is subtracted before the multiplication, as in float32 dequantization.
    const int64_t at = (static_cast<int64_t>(tile) * groups_of(w) + k / w.group_size) * LANES + lane;
    const int zero = w.scales == BW_ZEROS ? static_cast<const uint8_t *>(w.offset.at)[at] : w.zero;
    number = scale[lane] * static_cast<float>(value - zero);
  }
}

}  // namespace bw::linear
