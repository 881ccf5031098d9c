#include "operations.h"

#include <cmath>

#include "linear_weights.h"
#include "simd.h"

namespace bw {
namespace {

float sum_of_squares(const float *x, int32_t size) {
  vf total[4] = {};
  int32_t i = 0;
  for (; i + 4 * LANES <= size; i += 4 * LANES) {
    for (int j = 0; j < 4; j++) {
      const vf value = load(x + i + j * LANES);
      total[j] += value * value;
    }
  }
  float rest = 0;
  for (; i < size; i++) rest += x[i] * x[i];
  return sum((total[0] + total[1]) + (total[2] + total[3])) + rest;
}

// to += scale * (weight ? factor * from * weight : from)
void add_scaled(float *to, const float *from, const float *weight, float factor, float scale, int32_t size) {
  for (int32_t i = 0; i < size; i++) to[i] += scale * (weight ? from[i] * factor * weight[i] : from[i]);
}

vf activate(int32_t activation, vf x) {
  if (activation == BW_SILU) return x * sigmoid(x);
  // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
  const vf argument = splat(0.7978845608028654f) * (x + splat(0.044715f) * x * x * x);
  return splat(0.5f) * x * (splat(1.0f) + hyperbolic_tangent(argument));
}

float activate_one(int32_t activation, float x) {
  if (activation == BW_SILU) return x / (1.0f + std::exp(-x));
  if (activation == BW_GELU) return 0.5f * x * (1.0f + std::erf(x * 0.7071067811865476f));
  return 0.5f * x * (1.0f + std::tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

}  // namespace

void quantize(const bw_quantized_inputs &quantized_inputs, int32_t row) {
  for (int32_t i = 0; i < quantized_inputs.count; i++)
    linear::quantize_rows(*quantized_inputs.to[i], quantized_inputs.order[i], row, row + 1);
}

void rmsnorm(float *to, const float *from, const float *weight, int32_t size, float epsilon) {
  const float factor = 1.0f / std::sqrt(sum_of_squares(from, size) / (float)size + epsilon);
  for (int32_t i = 0; i < size; i++) to[i] = from[i] * factor * weight[i];
}

void embedding(const bw_embedding &op, int32_t token, int32_t row) {
  float *to = op.x + (int64_t)row * op.hidden_size;
  const int64_t start = (int64_t)token * op.hidden_size;
  if (op.matrix) {
    linear::row_of(*op.matrix, token, to);
    for (int32_t i = 0; i < op.hidden_size; i++) to[i] *= op.scale;
  } else if (op.weights == BW_F32) {
    for (int32_t i = 0; i < op.hidden_size; i++) to[i] = op.scale * ((const float *)op.table.at)[start + i];
  } else if (op.weights == BW_BF16) {
    const uint16_t *from = (const uint16_t *)op.table.at + start;
    for (int32_t i = 0; i < op.hidden_size; i++) to[i] = op.scale * from_bfloat(from[i]);
  } else {
    const uint16_t *from = (const uint16_t *)op.table.at + start;
    for (int32_t i = 0; i < op.hidden_size; i++) to[i] = op.scale * from_half(from[i]);
  }
}

void rmsnorm(const bw_rmsnorm &op, int32_t in, int32_t out) {
  const int64_t hidden_size = op.hidden_size;
  float *x = op.x + in * hidden_size;
  if (op.y) {
    const float *y = op.y + in * hidden_size;
    const float size = (float)op.hidden_size;
    const float factor =
        op.post_norm ? 1.0f / std::sqrt(sum_of_squares(y, op.hidden_size) / size + op.epsilon) : 1.0f;
    add_scaled(x, y, op.post_norm, factor, op.scale, op.hidden_size);
  }
  if (op.norm) rmsnorm(op.out + out * hidden_size, x, op.norm, op.hidden_size, op.epsilon);
  quantize(op.quantized_inputs, out);
}

void gated_activation(const bw_gated_activation &op, int32_t row) {
  const float *gate = op.gate + row * op.stride, *up = op.up + row * op.stride;
  float *out = op.out + (int64_t)row * op.intermediate_size;
  int32_t i = 0;
  if (op.activation != BW_GELU) {
    for (; i + LANES <= op.intermediate_size; i += LANES) {
      store(out + i, activate(op.activation, load(gate + i)) * load(up + i));
    }
  }
  for (; i < op.intermediate_size; i++) out[i] = activate_one(op.activation, gate[i]) * up[i];
  quantize(op.quantized_inputs, row);
}

void scale_logits(const bw_logits &op, float *logits, int32_t first, int32_t last) {
  int32_t i = first;
  if (op.softcap == 0.0f) {
    for (; i < last; i++) logits[i] *= op.scale;
    return;
  }
  const float factor = op.scale / op.softcap;
  for (; i + LANES <= last; i += LANES) {
    store(logits + i, splat(op.softcap) * hyperbolic_tangent(splat(factor) * load(logits + i)));
  }
  for (; i < last; i++) logits[i] = op.softcap * std::tanh(factor * logits[i]);
}

}  // namespace bw
