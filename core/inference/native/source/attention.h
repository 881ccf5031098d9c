// Attention over the KV cache: norms and RoPE of q and k, scores, online softmax and weighted sums of values.
#pragma once
#include "program.h"

namespace bw {

// The division of a step's attention into pieces of work.
struct AttentionPieces {
  int32_t queries;  // rows of a block
  int32_t blocks;   // of rows
  int32_t splits;   // parts of the keys of a block
  int32_t count;    // all pieces
};

AttentionPieces attention_pieces(const bw_attention &op, int32_t rows, int32_t position, int32_t threads);
// Apply norms and RoPE to q and k of rows [first, last), scale q, and store k and v in the cache.
void qk_norm_rope(const bw_attention &op, int32_t position, int32_t first, int32_t last);
// Return the floats of scratch that one thread needs for `attention`.
int64_t attention_scratch(const bw_attention &op);
void attention(const bw_attention &op, const AttentionPieces &pieces, int32_t rows, int32_t position, int32_t piece,
            float *scratch);
// Combine the splits of one row and quantize the result.
void split_kv_reduce(const bw_attention &op, const AttentionPieces &pieces, int32_t rows, int32_t row);

}  // namespace bw
