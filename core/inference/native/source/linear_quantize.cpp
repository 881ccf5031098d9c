// Quantization of activations to int8 by blocks of inputs, in one plane or two:
// x = scale * values (+ finer scale * values).
#include <cstring>

#include "checks.h"
#include "linear_weights.h"

namespace {

constexpr int WIDEST = 32;

int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Return the bits of the largest magnitude of a block; those of infinity and NaN compare above all others.
template <int BLOCK>
float largest(const float *x) {
  uint32_t most[16] = {};
  for (int i = 0; i < BLOCK; i += 16) {
    for (int lane = 0; lane < 16; lane++) {
      uint32_t bits;
      memcpy(&bits, x + i + lane, 4);
      bits &= 0x7fffffff;
      most[lane] = bits > most[lane] ? bits : most[lane];
    }
  }
  uint32_t all = 0;
  for (int lane = 0; lane < 16; lane++) all = most[lane] > all ? most[lane] : all;
  float value;
  memcpy(&value, &all, 4);
  return value;
}

// Round x / scale to integers, leave the remainder in x, and return the sum of the integers.
template <int BLOCK>
int32_t round_block(float *x, float scale, int8_t *to) {
  constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
  // Smaller scales are treated as 0, since their inverse may be infinite.
  const float inverse = scale > 1e-30f ? 1 / scale : 0;
  int32_t ints[BLOCK], total = 0;
  for (int i = 0; i < BLOCK; i++) {
    const float shifted = x[i] * inverse + MAGIC;
    memcpy(&ints[i], &shifted, 4);
    ints[i] -= 0x4b400000;
    x[i] -= static_cast<float>(ints[i]) * scale;
  }
  for (int i = 0; i < BLOCK; i++) {
    to[i] = static_cast<int8_t>(ints[i]);
    total += to[i];
  }
  return total;
}

template <int BLOCK>
void quantize_row(const bw_activations &to, const int32_t *order, int64_t row) {
  const float *x = to.x + row * to.in_features;
  const int64_t blocks = to.in_features / BLOCK;
  for (int64_t block = 0; block < blocks; block++) {
    float part[WIDEST];
    for (int i = 0; i < BLOCK; i++) part[i] = order ? x[order[block * BLOCK + i]] : x[block * BLOCK + i];
    float scale = largest<BLOCK>(part) / 127;
    for (int plane = 0; plane < to.planes; plane++) {
      const int64_t at = (row * to.planes + plane) * blocks + block;
      int8_t *values = to.values + (row * to.planes + plane) * to.stride + block * BLOCK;
      const int32_t total = round_block<BLOCK>(part, scale, values);
      to.scale[at] = scale;
      to.total[at] = total;
      to.sum[at] = scale * static_cast<float>(total);
      scale /= 254;  // the remainder is at most half a step
    }
  }
}

}  // namespace

void bw::linear::quantize_rows(const bw_activations &to, const int32_t *order, int32_t first, int32_t last) {
  if (!to.block) return;
  for (int64_t row = first; row < last; row++) {
    to.block == 16 ? quantize_row<16>(to, order, row) : quantize_row<32>(to, order, row);
  }
}

extern "C" {

int64_t bw_activation_bytes(const bw_activations *of) {
  if (bw::check_sizes(*of) != BW_DONE) return BW_BAD_VALUE;
  if (!of->block) return 0;
  const int64_t planes = static_cast<int64_t>(of->rows) * of->planes, blocks = of->in_features / of->block;
  return planes * rounded(of->in_features) + 3 * rounded(planes * blocks * 4);
}

int32_t bw_place_activations(bw_activations *to, void *memory, int64_t bytes) {
  const int64_t needed = bw_activation_bytes(to);
  if (needed < 0) return BW_BAD_VALUE;
  if (!to->block) return BW_DONE;
  if (!memory || reinterpret_cast<uintptr_t>(memory) % 64) return BW_BAD_POINTER;
  if (bytes < needed) return BW_TOO_SHORT;
  const int64_t planes = static_cast<int64_t>(to->rows) * to->planes, blocks = to->in_features / to->block;
  const int64_t numbers = planes * blocks * 4;
  char *at = static_cast<char *>(memory);
  to->stride = rounded(to->in_features);
  to->values = {reinterpret_cast<int8_t *>(at), planes * to->stride};
  at += planes * to->stride;
  to->scale = {reinterpret_cast<float *>(at), numbers};
  at += rounded(numbers);
  to->sum = {reinterpret_cast<float *>(at), numbers};
  at += rounded(numbers);
  to->total = {reinterpret_cast<int32_t *>(at), numbers};
  return BW_DONE;
}
}
