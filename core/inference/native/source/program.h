// The op graph of one decoder step: the operations and their arguments. Every struct is mirrored in Python.
// A row is one token of the step; buffers are float32 [rows][columns]. Independent of model architectures.
#pragma once
#include <cstdint>

#include "bitwright.h"

constexpr int BW_PARTS = 4;

enum bw_kind : int32_t {
  BW_EMBEDDING = 0,
  BW_RMSNORM = 1,
  BW_MATMUL = 2,
  BW_GATED_ACTIVATION = 3,
  BW_QK_NORM_ROPE = 4,
  BW_ATTENTION = 5,
  BW_SPLIT_KV_REDUCE = 6,
  BW_LOGITS = 7,
  BW_KINDS = 8,
};

enum bw_activation_function : int32_t { BW_SILU = 0, BW_GELU_TANH = 1, BW_GELU = 2 };

struct bw_op {
  int32_t kind;
  int32_t logit_rows_only;  // compute only the rows whose logits are wanted
  bw_memory<const void> args;  // exactly one struct of the kind
};

// Activations of the matmuls that follow; the output row is quantized for each of them.
struct bw_quantized_inputs {
  int32_t count;
  int32_t unused;
  bw_activations *to[BW_PARTS];
  bw_memory<const int32_t> order[BW_PARTS];
};

// x = scale * table[token]
struct bw_embedding {
  int32_t weights;  // of the table: BW_F32, BW_BF16 or BW_F16
  int32_t hidden_size;
  float scale;
  int32_t vocab_size;
  bw_memory<const void> table;  // [vocab_size][hidden_size], or null
  const bw_matrix *matrix;      // used instead of the table: the matrix of the head
  bw_memory<float> x;
};

// x += scale * (post_norm ? norm(y) * post_norm : y) if there is a y; then out = norm ? norm(x) * norm : x.
struct bw_rmsnorm {
  int32_t hidden_size;
  float epsilon, scale;
  int32_t unused;
  bw_memory<float> x;
  bw_memory<const float> y, post_norm, norm;  // output of attention or MLP; weights of its norm; weights of the next
  bw_memory<float> out;                       // may be x if `norm` is null
  bw_quantized_inputs quantized_inputs;
};

struct bw_matmul {
  int32_t count;
  int32_t add;
  const bw_matrix *matrix[BW_PARTS];
  bw_activations *in[BW_PARTS];
  bw_memory<float> out[BW_PARTS];  // null: the caller's logits
  int64_t stride[BW_PARTS];
};

// out = activation(gate) * up
struct bw_gated_activation {
  int32_t activation;  // bw_activation_function
  int32_t intermediate_size;
  bw_memory<const float> gate, up;
  int64_t stride;  // of gate and up
  bw_memory<float> out;
  bw_quantized_inputs quantized_inputs;
};

// Arguments of BW_QK_NORM_ROPE, BW_ATTENTION and BW_SPLIT_KV_REDUCE of one block.
struct bw_attention {
  int32_t num_heads, num_kv_heads;
  int32_t head_dim;        // a multiple of 16
  int32_t rotary_dim;      // RoPE is applied to components [0, rotary_dim), in halves; 0: no RoPE
  int32_t context_length;  // tokens that the cache holds, a multiple of 16
  int32_t fp16_cache;      // the cache holds 16-bit floats, else 32-bit ones
  int32_t window;          // sliding window in tokens, the current one included; 0: all tokens
  int32_t norm_all_heads;  // q_norm and k_norm span all heads at once
  float epsilon, scale, softcap;  // of the norms; of q; of the scores (0: none)
  int32_t max_splits;             // most threads that share the keys of one token
  bw_memory<float> q;
  bw_memory<const float> k, v;
  int64_t stride;                         // of q, k and v
  bw_memory<const float> q_norm, k_norm;  // [head_dim], or of all heads, or null
  bw_memory<const float> cos, sin;        // [positions][rotary_dim / 2]
  bw_memory<void> key_cache;              // [num_kv_heads][context_length / 16][head_dim][16]
  bw_memory<void> value_cache;            // [num_kv_heads][context_length][head_dim]
  bw_memory<float> partial;               // [max_splits][BW_SPLIT_KV_ROWS * num_heads][head_dim + 2]
  bw_memory<float> out;                   // [rows][num_heads * head_dim]
  bw_quantized_inputs quantized_inputs;
};

// Most rows of a step whose keys are split between threads.
constexpr int BW_SPLIT_KV_ROWS = 16;

// logits = softcap * tanh(scale * logits / softcap), without a softcap scale * logits
struct bw_logits {
  int32_t vocab_size;
  float scale, softcap;
};

struct bw_program {
  bw_memory<const bw_op> ops;
  bw_memory<bw_activations *const> activations;  // those of logit_rows_only come last
  int32_t count, activation_count, logit_activations;
  int32_t threads;
  bw_memory<int64_t> op_nanoseconds;  // [BW_KINDS] time is added for each kind of operation; or null
  bw_memory<float> scratch;  // `scratch_size` floats for each thread
  int64_t scratch_size;
};

enum bw_wanted : int32_t { BW_NO_LOGITS = 0, BW_LAST_LOGITS = 1, BW_ALL_LOGITS = 2 };

struct bw_step {
  bw_memory<const int32_t> tokens;
  int32_t rows, position;
  int32_t wanted;  // bw_wanted
  int32_t unused;
  bw_memory<float> logits;   // [wanted rows][vocab_size]
  int32_t (*should_stop)();  // called every few milliseconds by the calling thread, or null
};

extern "C" {
// Compute one step. Returns BW_STOPPED if it was stopped; the cache is then undefined from `position` on. Returns a
// negative bw_error, without computing anything, if the arguments are invalid.
int32_t bw_run(const bw_program *program, const bw_step *step);
// Return the result of `bw_run` without computing anything; sets the rows of all activations.
int32_t bw_check(const bw_program *program, const bw_step *step);
// Return the floats of scratch that one thread needs for these operations, a multiple of 32, or a bw_error.
int64_t bw_scratch_size(const bw_op *ops, int32_t count);
// Return whether the cache may hold 16-bit floats on this machine.
int32_t bw_has_fp16_cache();
// Return the size of a struct of bitwright.h or this file, by its number; Python compares them with its own.
int32_t bw_struct_size(int32_t which);
}
