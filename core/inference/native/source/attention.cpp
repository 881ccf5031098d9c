#include "attention.h"

#include <cmath>

#include "checks.h"
#include "operations.h"
#include "product.h"
#include "simd.h"

namespace bw {
namespace {

constexpr int32_t TILE = 16;        // keys that lie interleaved in the cache
constexpr int32_t KEYS = 64;        // keys that are handled at once
constexpr int32_t WANTED_ROWS = 48; // rows of scores (queries times heads of a group) that share what is read of the cache
constexpr int32_t SPLIT_KEYS = 256; // fewer keys than this are not worth a thread of their own
// So few rows of scores read the cache where it lies; at most so many of them at once have room in the registers.
#if defined(__AVX512F__)
constexpr int32_t FEW_ROWS = 8, DIRECT_ROWS = 8;
#else
constexpr int32_t FEW_ROWS = 6, DIRECT_ROWS = 3;
#endif
constexpr float NOTHING = -INFINITY;

int32_t rows_of(const bw_heads &op, const AttentionPieces &pieces) { return op.heads / op.groups * pieces.queries; }

void turn(float *head, const float *cosine, const float *sine, int32_t half) {
  for (int32_t i = 0; i < half; i++) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cosine[i] - b * sine[i];
    head[i + half] = b * cosine[i] + a * sine[i];
  }
}

// Norm and rotation of `count` heads that lie behind each other.
void prepare(const bw_heads &op, float *heads, const float *from, int32_t count, const float *norm, int32_t position) {
  if (norm && op.whole) {
    rms_norm(heads, from, norm, count * op.size, op.epsilon);
  } else if (norm) {
    for (int32_t h = 0; h < count; h++) rms_norm(heads + h * op.size, from + h * op.size, norm, op.size, op.epsilon);
  } else if (heads != from) {
    std::memcpy(heads, from, sizeof(float) * (size_t)(count * op.size));
  }
  if (!op.rotary) return;
  const int32_t half = op.rotary / 2;
  const int64_t start = (int64_t)position * half;
  for (int32_t h = 0; h < count; h++) turn(heads + h * op.size, op.cosine + start, op.sine + start, half);
}

void keep_key(const bw_heads &op, int32_t group, int32_t position, const float *key) {
  const int64_t start = ((int64_t)group * op.context + position / TILE * TILE) * op.size + position % TILE;
  if (op.halves) {
    uint16_t *to = (uint16_t *)op.keys.at + start;
    for (int32_t i = 0; i < op.size; i++) to[i * TILE] = to_half(key[i]);
  } else {
    float *to = (float *)op.keys.at + start;
    for (int32_t i = 0; i < op.size; i++) to[i * TILE] = key[i];
  }
}

void keep_value(const bw_heads &op, int32_t group, int32_t position, const float *value) {
  const int64_t start = ((int64_t)group * op.context + position) * op.size;
  if (op.halves) {
    uint16_t *to = (uint16_t *)op.values.at + start;
    for (int32_t i = 0; i < op.size; i++) to[i] = to_half(value[i]);
  } else {
    std::memcpy((float *)op.values.at + start, value, sizeof(float) * (size_t)op.size);
  }
}

vf read(const bw_heads &op, const void *from, int64_t at) {
  return op.halves ? load_halves((const uint16_t *)from + at) : load((const float *)from + at);
}

// Keys [first, first + KEYS) as floats [size][KEYS]; columns beyond the cache are not touched.
void read_keys(const bw_heads &op, int32_t group, int32_t first, int32_t last, float *to) {
  for (int32_t tile = first; tile < last; tile += TILE) {
    const int64_t start = ((int64_t)group * op.context + tile) * op.size;
    for (int32_t i = 0; i < op.size; i++) {
      for (int32_t j = 0; j < TILE; j += LANES) {
        store(to + i * KEYS + (tile - first) + j, read(op, op.keys.at, start + i * TILE + j));
      }
    }
  }
}

// Values [first, last) as floats [KEYS][size].
void read_values(const bw_heads &op, int32_t group, int32_t first, int32_t last, float *to) {
  const int64_t start = ((int64_t)group * op.context + first) * op.size;
  const int64_t count = (int64_t)(last - first) * op.size;
  for (int64_t i = 0; i < count; i += LANES) store(to + i, read(op, op.values.at, start + i));
}

// The state of the soft maximum of one row of scores while the keys go by.
struct Row {
  float most, total;
};

struct Scratch {
  float *q, *scores, *keys, *values, *sums;
  Row *rows;
};

// Scores of R rows of queries and keys [first, last), read where they lie.
template <int R, class Number>
void direct_scores(const bw_heads &op, int32_t group, int32_t first, int32_t last, const float *q, float *scores) {
  constexpr int ACROSS = TILE / LANES, BOTH = 2 * ACROSS;
  const Number *keys = (const Number *)op.keys.at + ((int64_t)group * op.context + first) * op.size;
  const int64_t apart = (int64_t)TILE * op.size;
  int32_t key = first;
  for (; key + TILE < last; key += 2 * TILE, keys += 2 * apart, scores += 2 * TILE) {
    direct_block<R, BOTH, ACROSS>(op.size, q, op.size, keys, TILE, apart, scores, KEYS, false);
  }
  if (key < last) direct_block<R, ACROSS, ACROSS>(op.size, q, op.size, keys, TILE, apart, scores, KEYS, false);
}

// The weighted values [first, last) added to the sums of R rows.
template <int R, class Number>
void direct_sums(const bw_heads &op, int32_t group, int32_t first, int32_t last, const float *weights, float *sums) {
  constexpr int ACROSS = TILE / LANES, BOTH = 2 * ACROSS;
  const Number *values = (const Number *)op.values.at + ((int64_t)group * op.context + first) * op.size;
  int32_t i = 0;
  for (; i + 2 * TILE <= op.size; i += 2 * TILE) {
    direct_block<R, BOTH, BOTH>(last - first, weights, KEYS, values + i, op.size, 0, sums + i, op.size, true);
  }
  if (i < op.size) {
    direct_block<R, ACROSS, ACROSS>(last - first, weights, KEYS, values + i, op.size, 0, sums + i, op.size, true);
  }
}

// Both functions for any number of rows, at most R at a time.
template <int R, class Number>
void direct_rows(const bw_heads &op, int32_t group, int32_t first, int32_t last, int32_t rows, const Scratch &at,
                 int32_t row, bool sums) {
  if (rows >= R) {
    if (sums) {
      direct_sums<R, Number>(op, group, first, last, at.scores + row * KEYS, at.sums + row * op.size);
    } else {
      direct_scores<R, Number>(op, group, first, last, at.q + row * op.size, at.scores + row * KEYS);
    }
    rows -= R;
    row += R;
    if (rows >= R) return direct_rows<R, Number>(op, group, first, last, rows, at, row, sums);
  }
  if constexpr (R > 1) {
    if (rows) direct_rows<R - 1, Number>(op, group, first, last, rows, at, row, sums);
  }
}

void direct(const bw_heads &op, int32_t group, int32_t first, int32_t last, int32_t rows, const Scratch &at,
            bool sums) {
  if (op.halves) {
    direct_rows<DIRECT_ROWS, uint16_t>(op, group, first, last, rows, at, 0, sums);
  } else {
    direct_rows<DIRECT_ROWS, float>(op, group, first, last, rows, at, 0, sums);
  }
}

// Scores of a row to weights, those outside [hidden, count) to nothing; the sums so far shrink where the largest grew.
void soften(float *scores, int32_t count, float cap, int32_t hidden, Row &row, float *sums, int32_t size) {
  const int32_t whole = (count + LANES - 1) / LANES * LANES;
  if (cap != 0.0f) {
    for (int32_t i = 0; i < whole; i += LANES) {
      store(scores + i, splat(cap) * hyperbolic_tangent(load(scores + i) / splat(cap)));
    }
  }
  for (int32_t i = 0; i < hidden; i++) scores[i] = NOTHING;
  for (int32_t i = count; i < whole; i++) scores[i] = NOTHING;
  vf most = splat(row.most);
  for (int32_t i = 0; i < whole; i += LANES) most = larger(most, load(scores + i));
  const float now = largest(most);
  vf total = {};
  for (int32_t i = 0; i < whole; i += LANES) {
    const vf score = load(scores + i);
    // The clamp inside makes e^-87 of what is masked: small, but not nothing.
    const vf weight = score > splat(NOTHING) ? exponential(score - splat(now)) : vf{};
    store(scores + i, weight);
    total += weight;
  }
  if (now > row.most) {
    const float shrink = row.most == NOTHING ? 0.0f : std::exp(row.most - now);
    for (int32_t i = 0; i < size; i += LANES) store(sums + i, splat(shrink) * load(sums + i));
    row.total *= shrink;
    row.most = now;
  }
  row.total += sum(total);
}

Scratch carve(const bw_heads &op, float *from, int32_t rows) {
  Scratch scratch;
  scratch.q = from;
  scratch.scores = scratch.q + rows * op.size;
  scratch.keys = scratch.scores + rows * KEYS;
  scratch.values = scratch.keys + op.size * KEYS;
  scratch.sums = scratch.values + op.size * KEYS;
  scratch.rows = (Row *)(scratch.sums + rows * op.size);
  return scratch;
}

}  // namespace

int64_t attention_scratch(const bw_heads &op) {
  const int64_t per = op.heads / op.groups, rows = per > WANTED_ROWS ? per : WANTED_ROWS;
  return rows * op.size * 2 + rows * KEYS + op.size * KEYS * 2 + rows * 2 + 64;
}

AttentionPieces attention_pieces(const bw_heads &op, int32_t rows, int32_t position, int32_t threads) {
  AttentionPieces pieces;
  const int32_t most = WANTED_ROWS / (op.heads / op.groups);
  pieces.queries = most < 1 ? 1 : most < rows ? most : rows;
  pieces.blocks = (rows + pieces.queries - 1) / pieces.queries;
  pieces.splits = 1;
  const int32_t together = pieces.blocks * op.groups;
  if (rows <= BW_SPLIT_ROWS && together < 8 * threads) {
    const int32_t seen = op.window && op.window < position + rows ? op.window : position + rows;
    const int32_t useful = seen / SPLIT_KEYS, wanted = (8 * threads + together - 1) / together;
    pieces.splits = useful < wanted ? useful : wanted;
    if (pieces.splits > op.splits) pieces.splits = op.splits;
    if (pieces.splits < 1) pieces.splits = 1;
  }
  pieces.count = together * pieces.splits;
  return pieces;
}

void place_heads(const bw_heads &op, int32_t position, int32_t first, int32_t last) {
  float key[MOST_KEYS];  // of all heads of a row
  for (int32_t row = first; row < last; row++) {
    float *q = op.q + row * op.stride;
    prepare(op, q, q, op.heads, op.q_norm, position + row);
    for (int32_t i = 0; i < op.heads * op.size; i++) q[i] *= op.scale;
    prepare(op, key, op.k + row * op.stride, op.groups, op.k_norm, position + row);
    for (int32_t group = 0; group < op.groups; group++) {
      keep_key(op, group, position + row, key + group * op.size);
      keep_value(op, group, position + row, op.v + row * op.stride + group * op.size);
    }
  }
}

void attend(const bw_heads &op, const AttentionPieces &pieces, int32_t rows, int32_t position, int32_t piece,
            float *memory) {
  const int32_t split = piece % pieces.splits, group = piece / pieces.splits % op.groups;
  // The last rows see most keys: they come first, so that no thread is left alone with them.
  const int32_t block = pieces.blocks - 1 - piece / pieces.splits / op.groups;
  const int32_t first_row = block * pieces.queries;
  const int32_t queries = first_row + pieces.queries < rows ? pieces.queries : rows - first_row;
  const int32_t per = op.heads / op.groups, height = queries * per, size = op.size;
  const bool few = height <= FEW_ROWS;
  const Scratch scratch = carve(op, memory, rows_of(op, pieces));
  for (int32_t r = 0; r < height; r++) {  // r = query * per + head
    const float *q = op.q + (first_row + r / per) * op.stride + (group * per + r % per) * size;
    std::memcpy(scratch.q + r * size, q, sizeof(float) * (size_t)size);
    std::memset(scratch.sums + r * size, 0, sizeof(float) * (size_t)size);
    scratch.rows[r] = {NOTHING, 0.0f};
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
      direct(op, group, key, last, height, scratch, false);
    } else {
      read_keys(op, group, key, last, scratch.keys);
      read_values(op, group, key, last, scratch.values);
      product(height, width, size, scratch.q, size, scratch.keys, KEYS, scratch.scores, KEYS, false);
    }
    for (int32_t r = 0; r < height; r++) {
      float *scores = scratch.scores + r * KEYS;
      const int32_t own = nearest + r / per, seen = own + 1 < last ? own + 1 - key : last - key;
      if (seen <= 0) {
        std::memset(scores, 0, sizeof(float) * KEYS);
        continue;
      }
      const int32_t hidden = op.window ? own + 1 - op.window - key : 0;
      if (hidden >= seen) {
        std::memset(scores, 0, sizeof(float) * KEYS);
        continue;
      }
      soften(scores, seen, op.cap, hidden > 0 ? hidden : 0, scratch.rows[r], scratch.sums + r * size, size);
      for (int32_t i = (seen + LANES - 1) / LANES * LANES; i < width; i++) scores[i] = 0.0f;
    }
    if (few) {
      direct(op, group, key, last, height, scratch, true);
    } else {
      product(height, size, last - key, scratch.scores, KEYS, scratch.values, size, scratch.sums, size, true);
    }
  }
  for (int32_t r = 0; r < height; r++) {
    const int32_t row = first_row + r / per, head = group * per + r % per;
    const float *sums = scratch.sums + r * size;
    const Row state = scratch.rows[r];
    if (pieces.splits > 1) {
      float *to = op.partial + (((int64_t)split * BW_SPLIT_ROWS + row) * op.heads + head) * (size + 2);
      to[0] = state.most;
      to[1] = state.total;
      std::memcpy(to + 2, sums, sizeof(float) * (size_t)size);
    } else {
      float *to = op.out + ((int64_t)row * op.heads + head) * size;
      for (int32_t i = 0; i < size; i++) to[i] = sums[i] / state.total;
    }
  }
}

void join(const bw_heads &op, const AttentionPieces &pieces, int32_t rows, int32_t row) {
  (void)rows;
  if (pieces.splits > 1) {
    for (int32_t head = 0; head < op.heads; head++) {
      const int64_t step = (int64_t)BW_SPLIT_ROWS * op.heads * (op.size + 2);
      const float *from = op.partial + ((int64_t)row * op.heads + head) * (op.size + 2);
      float *to = op.out + ((int64_t)row * op.heads + head) * op.size;
      float most = NOTHING, total = 0;
      for (int32_t s = 0; s < pieces.splits; s++) most = from[s * step] > most ? from[s * step] : most;
      for (int32_t i = 0; i < op.size; i++) to[i] = 0;
      for (int32_t s = 0; s < pieces.splits; s++) {
        const float *part = from + s * step;
        if (part[0] == NOTHING) continue;
        const float share = std::exp(part[0] - most);
        total += share * part[1];
        for (int32_t i = 0; i < op.size; i++) to[i] += share * part[2 + i];
      }
      for (int32_t i = 0; i < op.size; i++) to[i] /= total;
    }
  }
  quantize(op.targets, row);
}

}  // namespace bw
