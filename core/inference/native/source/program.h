// A whole decoder step as a list of operations: what each takes and gives. Every struct is mirrored in Python.
// A row is one token of the step; buffers are float32 [rows][width]. Nothing here knows an architecture.
#pragma once
#include <cstdint>

#include "bitwright.h"

constexpr int BW_PARTS = 4;

enum bw_kind : int32_t {
  BW_EMBED = 0,
  BW_ROWS = 1,
  BW_LINEAR = 2,
  BW_GATE = 3,
  BW_HEADS = 4,
  BW_ATTEND = 5,
  BW_JOIN = 6,
  BW_LOGITS = 7,
  BW_KINDS = 8,
};

enum bw_function : int32_t { BW_SILU = 0, BW_GELU_TANH = 1, BW_GELU = 2 };

struct bw_op {
  int32_t kind;
  int32_t tail;  // only the rows whose logits are wanted
  bw_memory<const void> what;  // exactly one struct of the kind
};

// What the linear operations that follow read: the rows quantized for each of them.
struct bw_targets {
  int32_t count;
  int32_t unused;
  bw_activations *to[BW_PARTS];
  bw_memory<const int32_t> order[BW_PARTS];
};

// x = scale * (row of the table of each token)
struct bw_embed {
  int32_t weights;  // of the table: BW_F32, BW_BF16 or BW_F16
  int32_t width;
  float scale;
  int32_t vocabulary;
  bw_memory<const void> table;  // [vocabulary][width], or null
  const bw_matrix *matrix;      // instead of it: the head's
  bw_memory<float> x;
};

// x += scale * (after ? norm(y) * after : y) where there is a y; then out = before ? norm(x) * before : x.
struct bw_rows {
  int32_t width;
  float epsilon, scale;
  int32_t unused;
  bw_memory<float> x;
  bw_memory<const float> y, after, before;
  bw_memory<float> out;  // may be x where `before` is null
  bw_targets targets;
};

struct bw_linear {
  int32_t count;
  int32_t add;
  const bw_matrix *matrix[BW_PARTS];
  bw_activations *in[BW_PARTS];
  bw_memory<float> out[BW_PARTS];  // null: the caller's logits
  int64_t stride[BW_PARTS];
};

// out = function(gate) * up
struct bw_gate {
  int32_t function;  // bw_function
  int32_t width;
  bw_memory<const float> gate, up;
  int64_t stride;  // of gate and up
  bw_memory<float> out;
  bw_targets targets;
};

// Heads of one block, and where their keys and values are kept.
struct bw_heads {
  int32_t heads, groups;  // query heads; key-value heads
  int32_t size;           // of a head, a multiple of 16
  int32_t rotary;         // components that are turned: [0, rotary), in halves; 0: none
  int32_t context;        // tokens that the cache holds, a multiple of 16
  int32_t halves;         // the cache holds 16-bit floats, else 32
  int32_t window;         // tokens that are seen, the own one included; 0: all
  int32_t whole;          // the norms are over all heads at once
  float epsilon, scale, cap;  // of the norms; of q before the scores; of the scores (0: none)
  int32_t splits;         // at most so many threads share the keys of one token
  bw_memory<float> q;
  bw_memory<const float> k, v;
  int64_t stride;  // of q, k and v
  bw_memory<const float> q_norm, k_norm;  // [size], or of all heads, or null
  bw_memory<const float> cosine, sine;    // [positions][rotary / 2]
  bw_memory<void> keys;      // [groups][context / 16][size][16]
  bw_memory<void> values;    // [groups][context][size]
  bw_memory<float> partial;  // [splits][BW_SPLIT_ROWS * heads][size + 2]
  bw_memory<float> out;      // [rows][heads * size]
  bw_targets targets;
};

// At most so many rows have their keys shared out.
constexpr int BW_SPLIT_ROWS = 16;

// logits = cap * tanh(scale * logits / cap), without a cap scale * logits
struct bw_logits {
  int32_t width;
  float scale, cap;
};

struct bw_program {
  bw_memory<const bw_op> ops;
  bw_memory<bw_activations *const> activations;  // all of them; those of the tail after the others
  int32_t count, activation_count, tail_activations;
  int32_t threads;
  bw_memory<int64_t> spent;  // nanoseconds by kind are added here where it is not null
  bw_memory<float> scratch;  // `scratch_size` floats for each thread
  int64_t scratch_size;
};

enum bw_wanted : int32_t { BW_NO_LOGITS = 0, BW_LAST_LOGITS = 1, BW_ALL_LOGITS = 2 };

struct bw_step {
  bw_memory<const int32_t> tokens;
  int32_t rows, position;
  int32_t wanted;  // bw_wanted
  int32_t unused;
  bw_memory<float> logits;   // [wanted rows][vocabulary]
  int32_t (*should_stop)();  // asked now and then by the calling thread, or null
};

extern "C" {
// Compute one step. BW_STOPPED where it was stopped on the way, the cache behind `position` is then undefined; another
// bw_error where it cannot be computed, and nothing was done.
int32_t bw_run(const bw_program *program, const bw_step *step);
// What `bw_run` would say without computing anything; sets the rows of all activations.
int32_t bw_check(const bw_program *program, const bw_step *step);
// Floats of scratch that one thread needs for these operations, a multiple of 32; a bw_error for what cannot be.
int64_t bw_scratch_size(const bw_op *ops, int32_t count);
// Whether a cache may hold 16-bit floats on this machine.
int32_t bw_has_halves();
// Size of each struct above and in bitwright.h, in the order of their kinds, for the check that Python has the same.
int32_t bw_struct_size(int32_t which);
}
