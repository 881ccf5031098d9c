#include "attention.h"

#include <cmath>

#include "checks.h"
#include "operations.h"
#include "product.h"
#include "simd.h"

namespace bw {
namespace {

constexpr int32_t TILE = 16;        // keys that are interleaved in the cache
constexpr int32_t KEYS = 64;        // keys of one step of the online softmax
// Rows of scores (queries times query heads of a KV head) that share the loaded keys.
constexpr int32_t TARGET_ROWS = 48;
constexpr int32_t SPLIT_KEYS = 256; // fewest keys of a split
// FEW_ROWS: up to so many rows of scores read the cache in place. DIRECT_ROWS: rows that fit into the registers.
#if defined(__AVX512F__)
constexpr int32_t FEW_ROWS = 8, DIRECT_ROWS = 8;
#else
constexpr int32_t FEW_ROWS = 6, DIRECT_ROWS = 3;
#endif
constexpr float MASKED = -INFINITY;

int32_t rows_of(const bw_attention &op, const AttentionPieces &pieces) {
  return op.num_heads / op.num_kv_heads * pieces.queries;
}

void apply_rope(float *head, const float *cos, const float *sin, int32_t half) {
  for (int32_t i = 0; i < half; i++) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

// Apply the norm and RoPE to `count` consecutive heads.
void norm_and_rope(const bw_attention &op, float *heads, const float *from, int32_t count, const float *norm,
                   int32_t position) {
  if (norm && op.norm_all_heads) {
    rmsnorm(heads, from, norm, count * op.head_dim, op.epsilon);
  } else if (norm) {
    for (int32_t h = 0; h < count; h++) {
      rmsnorm(heads + h * op.head_dim, from + h * op.head_dim, norm, op.head_dim, op.epsilon);
    }
  } else if (heads != from) {
    std::memcpy(heads, from, sizeof(float) * (size_t)(count * op.head_dim));
  }
  if (!op.rotary_dim) return;
  const int32_t half = op.rotary_dim / 2;
  const int64_t start = (int64_t)position * half;
  for (int32_t h = 0; h < count; h++) apply_rope(heads + h * op.head_dim, op.cos + start, op.sin + start, half);
}

void store_key(const bw_attention &op, int32_t kv_head, int32_t position, const float *key) {
  const int64_t start = ((int64_t)kv_head * op.context_length + position / TILE * TILE) * op.head_dim + position % TILE;
  if (op.fp16_cache) {
    uint16_t *to = (uint16_t *)op.key_cache.at + start;
    for (int32_t i = 0; i < op.head_dim; i++) to[i * TILE] = to_half(key[i]);
  } else {
    float *to = (float *)op.key_cache.at + start;
    for (int32_t i = 0; i < op.head_dim; i++) to[i * TILE] = key[i];
  }
}

void store_value(const bw_attention &op, int32_t kv_head, int32_t position, const float *value) {
  const int64_t start = ((int64_t)kv_head * op.context_length + position) * op.head_dim;
  if (op.fp16_cache) {
    uint16_t *to = (uint16_t *)op.value_cache.at + start;
    for (int32_t i = 0; i < op.head_dim; i++) to[i] = to_half(value[i]);
  } else {
    std::memcpy((float *)op.value_cache.at + start, value, sizeof(float) * (size_t)op.head_dim);
  }
}

vf load_cache(const bw_attention &op, const void *from, int64_t at) {
  return op.fp16_cache ? load_halves((const uint16_t *)from + at) : load((const float *)from + at);
}

// Load keys [first, last) as floats [head_dim][KEYS]; columns from `last` on are not written.
void load_keys(const bw_attention &op, int32_t kv_head, int32_t first, int32_t last, float *to) {
  for (int32_t tile = first; tile < last; tile += TILE) {
    const int64_t start = ((int64_t)kv_head * op.context_length + tile) * op.head_dim;
    for (int32_t i = 0; i < op.head_dim; i++) {
      for (int32_t j = 0; j < TILE; j += LANES) {
        store(to + i * KEYS + (tile - first) + j, load_cache(op, op.key_cache.at, start + i * TILE + j));
      }
    }
  }
}

// Load values [first, last) as floats [KEYS][head_dim].
void load_values(const bw_attention &op, int32_t kv_head, int32_t first, int32_t last, float *to) {
  const int64_t start = ((int64_t)kv_head * op.context_length + first) * op.head_dim;
  const int64_t count = (int64_t)(last - first) * op.head_dim;
  for (int64_t i = 0; i < count; i += LANES) store(to + i, load_cache(op, op.value_cache.at, start + i));
}

// The running maximum and total of the online softmax of one row of scores.
struct Row {
  float max, total;
};

struct Scratch {
  float *q, *scores, *keys, *values, *sums;
  Row *rows;
};

// Compute the scores of R rows of queries and keys [first, last), reading the cache in place.
template <int R, class Number>
void direct_scores(const bw_attention &op, int32_t kv_head, int32_t first, int32_t last, const float *q,
                   float *scores) {
  constexpr int ACROSS = TILE / LANES, BOTH = 2 * ACROSS;
  const Number *keys = (const Number *)op.key_cache.at + ((int64_t)kv_head * op.context_length + first) * op.head_dim;
  const int64_t apart = (int64_t)TILE * op.head_dim;
  int32_t key = first;
  for (; key + TILE < last; key += 2 * TILE, keys += 2 * apart, scores += 2 * TILE) {
    direct_block<R, BOTH, ACROSS>(op.head_dim, q, op.head_dim, keys, TILE, apart, scores, KEYS, false);
  }
  if (key < last) direct_block<R, ACROSS, ACROSS>(op.head_dim, q, op.head_dim, keys, TILE, apart, scores, KEYS, false);
}

// Add the weighted values [first, last) to the sums of R rows, reading the cache in place.
template <int R, class Number>
void direct_sums(const bw_attention &op, int32_t kv_head, int32_t first, int32_t last, const float *weights,
                 float *sums) {
  constexpr int ACROSS = TILE / LANES, BOTH = 2 * ACROSS;
  const int64_t start = ((int64_t)kv_head * op.context_length + first) * op.head_dim;
  const Number *values = (const Number *)op.value_cache.at + start;
  int32_t i = 0;
  for (; i + 2 * TILE <= op.head_dim; i += 2 * TILE) {
    direct_block<R, BOTH, BOTH>(last - first, weights, KEYS, values + i, op.head_dim, 0, sums + i, op.head_dim, true);
  }
  if (i < op.head_dim) {
    const int32_t keys = last - first;
    direct_block<R, ACROSS, ACROSS>(keys, weights, KEYS, values + i, op.head_dim, 0, sums + i, op.head_dim, true);
  }
}

// Call one of both functions for any number of rows, at most R at a time.
template <int R, class Number>
void direct_rows(const bw_attention &op, int32_t kv_head, int32_t first, int32_t last, int32_t rows, const Scratch &at,
                 int32_t row, bool sums) {
  if (rows >= R) {
    if (sums) {
      direct_sums<R, Number>(op, kv_head, first, last, at.scores + row * KEYS, at.sums + row * op.head_dim);
    } else {
      direct_scores<R, Number>(op, kv_head, first, last, at.q + row * op.head_dim, at.scores + row * KEYS);
    }
    rows -= R;
    row += R;
    if (rows >= R) return direct_rows<R, Number>(op, kv_head, first, last, rows, at, row, sums);
  }
  if constexpr (R > 1) {
    if (rows) direct_rows<R - 1, Number>(op, kv_head, first, last, rows, at, row, sums);
  }
}

void direct(const bw_attention &op, int32_t kv_head, int32_t first, int32_t last, int32_t rows, const Scratch &at,
            bool sums) {
  if (op.fp16_cache) {
    direct_rows<DIRECT_ROWS, uint16_t>(op, kv_head, first, last, rows, at, 0, sums);
  } else {
    direct_rows<DIRECT_ROWS, float>(op, kv_head, first, last, rows, at, 0, sums);
  }
}

// Replace the scores of a row by softmax weights, 0 outside of [masked, count); rescale the sums if the maximum grows.
void online_softmax(float *scores, int32_t count, float softcap, int32_t masked, Row &row, float *sums, int32_t size) {
  const int32_t whole = (count + LANES - 1) / LANES * LANES;
  if (softcap != 0.0f) {
    for (int32_t i = 0; i < whole; i += LANES) {
      store(scores + i, splat(softcap) * hyperbolic_tangent(load(scores + i) / splat(softcap)));
    }
  }
  for (int32_t i = 0; i < masked; i++) scores[i] = MASKED;
  for (int32_t i = count; i < whole; i++) scores[i] = MASKED;
  vf most = splat(row.max);
  for (int32_t i = 0; i < whole; i += LANES) most = larger(most, load(scores + i));
  const float now = largest(most);
  vf total = {};
  for (int32_t i = 0; i < whole; i += LANES) {
    const vf score = load(scores + i);
    // exponential() clamps its argument, so masked scores need a separate test to become 0.
    const vf weight = score > splat(MASKED) ? exponential(score - splat(now)) : vf{};
    store(scores + i, weight);
    total += weight;
  }
  if (now > row.max) {
    const float shrink = row.max == MASKED ? 0.0f : std::exp(row.max - now);
    for (int32_t i = 0; i < size; i += LANES) store(sums + i, splat(shrink) * load(sums + i));
    row.total *= shrink;
    row.max = now;
  }
  row.total += sum(total);
}

Scratch split_scratch(const bw_attention &op, float *from, int32_t rows) {
  Scratch scratch;
  scratch.q = from;
  scratch.scores = scratch.q + rows * op.head_dim;
  scratch.keys = scratch.scores + rows * KEYS;
  scratch.values = scratch.keys + op.head_dim * KEYS;
  scratch.sums = scratch.values + op.head_dim * KEYS;
  scratch.rows = (Row *)(scratch.sums + rows * op.head_dim);
  return scratch;
}

}  // namespace

int64_t attention_scratch(const bw_attention &op) {
  const int64_t group_size = op.num_heads / op.num_kv_heads, rows = group_size > TARGET_ROWS ? group_size : TARGET_ROWS;
  return rows * op.head_dim * 2 + rows * KEYS + op.head_dim * KEYS * 2 + rows * 2 + 64;
}

AttentionPieces attention_pieces(const bw_attention &op, int32_t rows, int32_t position, int32_t threads) {
  AttentionPieces pieces;
  const int32_t most = TARGET_ROWS / (op.num_heads / op.num_kv_heads);
  pieces.queries = most < 1 ? 1 : most < rows ? most : rows;
  pieces.blocks = (rows + pieces.queries - 1) / pieces.queries;
  pieces.splits = 1;
  const int32_t together = pieces.blocks * op.num_kv_heads;
  if (rows <= BW_SPLIT_KV_ROWS && together < 8 * threads) {
    const int32_t seen = op.window && op.window < position + rows ? op.window : position + rows;
    const int32_t useful = seen / SPLIT_KEYS, wanted = (8 * threads + together - 1) / together;
    pieces.splits = useful < wanted ? useful : wanted;
    if (pieces.splits > op.max_splits) pieces.splits = op.max_splits;
    if (pieces.splits < 1) pieces.splits = 1;
  }
  pieces.count = together * pieces.splits;
  return pieces;
}

void qk_norm_rope(const bw_attention &op, int32_t position, int32_t first, int32_t last) {
  float key[MAX_KEY_SIZE];  // of all heads of a row
  for (int32_t row = first; row < last; row++) {
    float *q = op.q + row * op.stride;
    norm_and_rope(op, q, q, op.num_heads, op.q_norm, position + row);
    for (int32_t i = 0; i < op.num_heads * op.head_dim; i++) q[i] *= op.scale;
    norm_and_rope(op, key, op.k + row * op.stride, op.num_kv_heads, op.k_norm, position + row);
    for (int32_t kv_head = 0; kv_head < op.num_kv_heads; kv_head++) {
      store_key(op, kv_head, position + row, key + kv_head * op.head_dim);
      store_value(op, kv_head, position + row, op.v + row * op.stride + kv_head * op.head_dim);
    }
  }
}

void attention(const bw_attention &op, const AttentionPieces &pieces, int32_t rows, int32_t position, int32_t piece,
            float *memory) {
  const int32_t split = piece % pieces.splits, kv_head = piece / pieces.splits % op.num_kv_heads;
  // The last rows attend to the most keys: they come first, which balances the load.
  const int32_t block = pieces.blocks - 1 - piece / pieces.splits / op.num_kv_heads;
  const int32_t first_row = block * pieces.queries;
  const int32_t queries = first_row + pieces.queries < rows ? pieces.queries : rows - first_row;
  const int32_t group_size = op.num_heads / op.num_kv_heads, height = queries * group_size, size = op.head_dim;
  const bool few = height <= FEW_ROWS;
  const Scratch scratch = split_scratch(op, memory, rows_of(op, pieces));
  for (int32_t r = 0; r < height; r++) {  // r = query * group_size + head
    const float *q = op.q + (first_row + r / group_size) * op.stride + (kv_head * group_size + r % group_size) * size;
    std::memcpy(scratch.q + r * size, q, sizeof(float) * (size_t)size);
    std::memset(scratch.sums + r * size, 0, sizeof(float) * (size_t)size);
    scratch.rows[r] = {MASKED, 0.0f};
  }
  const int32_t nearest = position + first_row, end = nearest + queries;
  const int32_t oldest = op.window && nearest + 1 > op.window ? nearest + 1 - op.window : 0;
  const int32_t start = oldest / KEYS * KEYS, spans = (end - start + KEYS - 1) / KEYS;
  const int32_t from = start + spans * split / pieces.splits * KEYS;
  const int32_t until = start + spans * (split + 1) / pieces.splits * KEYS;
  for (int32_t key = from; key < until && key < end; key += KEYS) {
    const int32_t last = key + KEYS < end ? key + KEYS : end;
    const int32_t width = (last - key + TILE - 1) / TILE * TILE;
    if (few) {
      direct(op, kv_head, key, last, height, scratch, false);
    } else {
      load_keys(op, kv_head, key, last, scratch.keys);
      load_values(op, kv_head, key, last, scratch.values);
      product(height, width, size, scratch.q, size, scratch.keys, KEYS, scratch.scores, KEYS, false);
    }
    for (int32_t r = 0; r < height; r++) {
      float *scores = scratch.scores + r * KEYS;
      const int32_t own = nearest + r / group_size, seen = own + 1 < last ? own + 1 - key : last - key;
      if (seen <= 0) {
        std::memset(scores, 0, sizeof(float) * KEYS);
        continue;
      }
      const int32_t masked = op.window ? own + 1 - op.window - key : 0;
      if (masked >= seen) {
        std::memset(scores, 0, sizeof(float) * KEYS);
        continue;
      }
      online_softmax(scores, seen, op.softcap, masked > 0 ? masked : 0, scratch.rows[r], scratch.sums + r * size, size);
      for (int32_t i = (seen + LANES - 1) / LANES * LANES; i < width; i++) scores[i] = 0.0f;
    }
    if (few) {
      direct(op, kv_head, key, last, height, scratch, true);
    } else {
      product(height, size, last - key, scratch.scores, KEYS, scratch.values, size, scratch.sums, size, true);
    }
  }
  for (int32_t r = 0; r < height; r++) {
    const int32_t row = first_row + r / group_size, head = kv_head * group_size + r % group_size;
    const float *sums = scratch.sums + r * size;
    const Row state = scratch.rows[r];
    if (pieces.splits > 1) {
      float *to = op.partial + (((int64_t)split * BW_SPLIT_KV_ROWS + row) * op.num_heads + head) * (size + 2);
      to[0] = state.max;
      to[1] = state.total;
      std::memcpy(to + 2, sums, sizeof(float) * (size_t)size);
    } else {
      float *to = op.out + ((int64_t)row * op.num_heads + head) * size;
      for (int32_t i = 0; i < size; i++) to[i] = sums[i] / state.total;
    }
  }
}

void split_kv_reduce(const bw_attention &op, const AttentionPieces &pieces, int32_t rows, int32_t row) {
  (void)rows;
  if (pieces.splits > 1) {
    for (int32_t head = 0; head < op.num_heads; head++) {
      const int64_t step = (int64_t)BW_SPLIT_KV_ROWS * op.num_heads * (op.head_dim + 2);
      const float *from = op.partial + ((int64_t)row * op.num_heads + head) * (op.head_dim + 2);
      float *to = op.out + ((int64_t)row * op.num_heads + head) * op.head_dim;
      float most = MASKED, total = 0;
      for (int32_t s = 0; s < pieces.splits; s++) most = from[s * step] > most ? from[s * step] : most;
      for (int32_t i = 0; i < op.head_dim; i++) to[i] = 0;
      for (int32_t s = 0; s < pieces.splits; s++) {
        const float *part = from + s * step;
        if (part[0] == MASKED) continue;
        const float share = std::exp(part[0] - most);
        total += share * part[1];
        for (int32_t i = 0; i < op.head_dim; i++) to[i] += share * part[2 + i];
      }
      for (int32_t i = 0; i < op.head_dim; i++) to[i] /= total;
    }
  }
  quantize(op.quantized_inputs, row);
}

}  // namespace bw
