// Attention over a cache of keys and values: norms and rotation of heads, scores, soft maximum and sums.
#pragma once
#include "program.h"

namespace bw {

// How the queries of a step are cut into pieces of work.
struct AttentionPieces {
  int32_t queries;  // rows of one block
  int32_t blocks;   // of rows
  int32_t splits;   // of the keys of a block
  int32_t count;    // all pieces
};

AttentionPieces attention_pieces(const bw_attention &op, int32_t rows, int32_t position, int32_t threads);
// Norm and turn q and k of rows [first, last), scale q, and put k and v into the cache.
void qk_norm_rope(const bw_attention &op, int32_t position, int32_t first, int32_t last);
// Floats of scratch that one thread needs for `attention`.
int64_t attention_scratch(const bw_attention &op);
void attention(const bw_attention &op, const AttentionPieces &pieces, int32_t rows, int32_t position, int32_t piece,
            float *scratch);
// Put the splits of one row together.
void split_kv_reduce(const bw_attention &op, const AttentionPieces &pieces, int32_t rows, int32_t row);

}  // namespace bw
