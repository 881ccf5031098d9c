// The operations that are neither matmuls nor attention, for single rows.
#pragma once
#include "program.h"

namespace bw {

// Quantize row `row` of the inputs of the quantized_inputs.
void quantize(const bw_quantized_inputs &quantized_inputs, int32_t row);
// Look up the embedding of row `row`.
void embedding(const bw_embedding &op, int32_t token, int32_t row);
// Process one row: `in` of x and y, `out` of the output.
void rmsnorm(const bw_rmsnorm &op, int32_t in, int32_t out);
void gated_activation(const bw_gated_activation &op, int32_t row);
// Scale and cap columns [first, last) of a row of logits.
void scale_logits(const bw_logits &op, float *logits, int32_t first, int32_t last);
// to = from / rms(from) * weight
void rmsnorm(float *to, const float *from, const float *weight, int32_t size, float epsilon);

}  // namespace bw
