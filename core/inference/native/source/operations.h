// The operations of a step that are neither products nor attention, row by row.
#pragma once
#include "program.h"

namespace bw {

// Quantize row `row` of what the targets read.
void quantize(const bw_targets &targets, int32_t row);
// Look up the embedding of row `row`.
void embed(const bw_embed &op, int32_t token, int32_t row);
// One row: `in` of x and y, `out` of the results.
void normalize(const bw_rows &op, int32_t in, int32_t out);
void gate(const bw_gate &op, int32_t row);
// Columns [first, last) of a row of logits.
void finish_logits(const bw_logits &op, float *logits, int32_t first, int32_t last);
// to = from / rms(from) * weight
void rms_norm(float *to, const float *from, const float *weight, int32_t width, float epsilon);

}  // namespace bw
