#include "operations.h"

#include <cmath>

#include "linear_weights.h"
#include "simd.h"

namespace bw {
namespace {

float squares(const float *x, int32_t width) {
  vf total[4] = {};
  int32_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES) {
    for (int j = 0; j < 4; j++) {
      const vf value = load(x + i + j * LANES);
      total[j] += value * value;
    }
  }
  float rest = 0;
  for (; i < width; i++) rest += x[i] * x[i];
  return sum((total[0] + total[1]) + (total[2] + total[3])) + rest;
}

// to += scale * (weight ? factor * from * weight : from)
void add_scaled(float *to, const float *from, const float *weight, float factor, float scale, int32_t width) {
  for (int32_t i = 0; i < width; i++) to[i] += scale * (weight ? from[i] * factor * weight[i] : from[i]);
}

vf activate(int32_t function, vf x) {
  if (function == BW_SILU) return x * sigmoid(x);
  // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
  const vf inner = splat(0.7978845608028654f) * (x + splat(0.044715f) * x * x * x);
  return splat(0.5f) * x * (splat(1.0f) + hyperbolic_tangent(inner));
}

float activate_one(int32_t function, float x) {
  if (function == BW_SILU) return x / (1.0f + std::exp(-x));
  if (function == BW_GELU) return 0.5f * x * (1.0f + std::erf(x * 0.7071067811865476f));
  return 0.5f * x * (1.0f + std::tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

}  // namespace

void quantize(const bw_targets &targets, int32_t row) {
  for (int32_t i = 0; i < targets.count; i++) linear::quantize_rows(*targets.to[i], targets.order[i], row, row + 1);
}

void rms_norm(float *to, const float *from, const float *weight, int32_t width, float epsilon) {
  const float factor = 1.0f / std::sqrt(squares(from, width) / (float)width + epsilon);
  for (int32_t i = 0; i < width; i++) to[i] = from[i] * factor * weight[i];
}

void embed(const bw_embed &op, int32_t token, int32_t row) {
  float *to = op.x + (int64_t)row * op.width;
  const int64_t start = (int64_t)token * op.width;
  if (op.matrix) {
    linear::row_of(*op.matrix, token, to);
    for (int32_t i = 0; i < op.width; i++) to[i] *= op.scale;
  } else if (op.weights == BW_F32) {
    for (int32_t i = 0; i < op.width; i++) to[i] = op.scale * ((const float *)op.table.at)[start + i];
  } else if (op.weights == BW_BF16) {
    for (int32_t i = 0; i < op.width; i++) to[i] = op.scale * from_bfloat(((const uint16_t *)op.table.at)[start + i]);
  } else {
    for (int32_t i = 0; i < op.width; i++) to[i] = op.scale * from_half(((const uint16_t *)op.table.at)[start + i]);
  }
}

void normalize(const bw_rows &op, int32_t in, int32_t out) {
  const int64_t width = op.width;
  float *x = op.x + in * width;
  if (op.y) {
    const float *y = op.y + in * width;
    const float factor = op.after ? 1.0f / std::sqrt(squares(y, op.width) / (float)op.width + op.epsilon) : 1.0f;
    add_scaled(x, y, op.after, factor, op.scale, op.width);
  }
  if (op.before) rms_norm(op.out + out * width, x, op.before, op.width, op.epsilon);
  quantize(op.targets, out);
}

void gate(const bw_gate &op, int32_t row) {
  const float *gate = op.gate + row * op.stride, *up = op.up + row * op.stride;
  float *out = op.out + (int64_t)row * op.width;
  int32_t i = 0;
  if (op.function != BW_GELU) {
    for (; i + LANES <= op.width; i += LANES) store(out + i, activate(op.function, load(gate + i)) * load(up + i));
  }
  for (; i < op.width; i++) out[i] = activate_one(op.function, gate[i]) * up[i];
  quantize(op.targets, row);
}

void finish_logits(const bw_logits &op, float *logits, int32_t first, int32_t last) {
  int32_t i = first;
  if (op.cap == 0.0f) {
    for (; i < last; i++) logits[i] *= op.scale;
    return;
  }
  const float factor = op.scale / op.cap;
  for (; i + LANES <= last; i += LANES) {
    store(logits + i, splat(op.cap) * hyperbolic_tangent(splat(factor) * load(logits + i)));
  }
  for (; i < last; i++) logits[i] = op.cap * std::tanh(factor * logits[i]);
}

}  // namespace bw
