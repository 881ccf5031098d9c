#include "checks.h"

#include "attention.h"
#include "linear_weights.h"
#include "simd.h"

namespace bw {
namespace {

bool in(int64_t value, int64_t least, int64_t most) { return least <= value && value <= most; }

// Return from the function with the first error of several checks.
#define BW_TRY(check)                                     \
  do {                                                    \
    if (const int32_t error = (check)) return error;      \
  } while (0)
#define BW_NEED(condition, error)                         \
  do {                                                    \
    if (!(condition)) return error;                       \
  } while (0)

// Check rows of `columns` floats that begin `stride` floats apart.
template <class T>
int32_t check_rows(const bw_memory<T> &memory, int64_t rows, int64_t stride, int64_t columns) {
  BW_NEED(in(stride, columns, int64_t(1) << 40), BW_BAD_SHAPE);
  return check_memory(memory, {(rows - 1) * stride + columns});
}

template <class T>
int32_t check_optional(const bw_memory<T> &memory, std::initializer_list<int64_t> lengths) {
  return memory.at ? check_memory(memory, lengths) : BW_DONE;
}

int32_t check_order(const bw_memory<const int32_t> &order, int32_t in_features) {
  if (!order.at) return BW_DONE;
  BW_TRY(check_memory(order, {in_features}));
  uint32_t most = 0;  // negative indices become the largest ones
  for (int32_t i = 0; i < in_features; i++) most = (uint32_t)order.at[i] > most ? (uint32_t)order.at[i] : most;
  return most < (uint32_t)in_features ? BW_DONE : BW_BAD_ORDER;
}

int32_t check_quantized_inputs(const bw_quantized_inputs &quantized_inputs, int32_t rows) {
  BW_NEED(in(quantized_inputs.count, 0, BW_PARTS), BW_BAD_VALUE);
  for (int32_t i = 0; i < quantized_inputs.count; i++) {
    BW_NEED(quantized_inputs.to[i], BW_BAD_POINTER);
    BW_TRY(check_activations(*quantized_inputs.to[i], rows));
    BW_TRY(check_order(quantized_inputs.order[i], quantized_inputs.to[i]->in_features));
  }
  return BW_DONE;
}

// The step against which an operation is checked.
struct Given {
  const bw_program &program;
  const bw_step &step;
  int32_t first, rows;  // of the operation: all rows, or the logit rows
};

int32_t check(const bw_embedding &op, const Given &given) {
  BW_NEED(in(op.hidden_size, 1, MAX_SIZE) && in(op.vocab_size, 1, MAX_SIZE), BW_BAD_VALUE);
  BW_TRY(check_memory(op.x, {given.rows, op.hidden_size}));
  if (op.matrix) {
    BW_TRY(check_matrix(*op.matrix));
    BW_NEED(op.matrix->in_features == op.hidden_size && op.matrix->out_features >= op.vocab_size, BW_BAD_SHAPE);
  } else {
    BW_NEED(in(op.weights, BW_F32, BW_F16), BW_BAD_VALUE);
    BW_TRY(check_memory(op.table, {op.vocab_size, op.hidden_size}, op.weights == BW_F32 ? 4 : 2));
  }
  for (int32_t row = 0; row < given.rows; row++) {
    BW_NEED(in(given.step.tokens.at[row], 0, op.vocab_size - 1), BW_BAD_TOKEN);
  }
  return BW_DONE;
}

int32_t check(const bw_rmsnorm &op, const Given &given) {
  BW_NEED(in(op.hidden_size, 1, MAX_SIZE), BW_BAD_VALUE);
  BW_TRY(check_memory(op.x, {given.first + given.rows, op.hidden_size}));
  BW_TRY(check_optional(op.y, {given.first + given.rows, op.hidden_size}));
  BW_TRY(check_optional(op.post_norm, {op.hidden_size}));
  BW_TRY(check_optional(op.norm, {op.hidden_size}));
  if (op.norm) BW_TRY(check_memory(op.out, {given.rows, op.hidden_size}));
  return check_quantized_inputs(op.quantized_inputs, given.rows);
}

int32_t check(const bw_matmul &op, const Given &given) {
  BW_NEED(in(op.count, 1, BW_PARTS), BW_BAD_VALUE);
  for (int32_t i = 0; i < op.count; i++) {
    BW_NEED(op.matrix[i] && op.in[i], BW_BAD_POINTER);
    BW_NEED(op.in[i]->rows == given.rows, BW_BAD_SHAPE);
    BW_TRY(check_product(*op.matrix[i], *op.in[i], given.rows));
    const bw_memory<float> &out = op.out[i].at ? op.out[i] : given.step.logits;
    BW_TRY(check_rows(out, given.rows, op.stride[i], op.matrix[i]->out_features));
  }
  return BW_DONE;
}

int32_t check(const bw_gated_activation &op, const Given &given) {
  BW_NEED(in(op.activation, BW_SILU, BW_GELU) && in(op.intermediate_size, 1, MAX_SIZE), BW_BAD_VALUE);
  BW_TRY(check_rows(op.gate, given.rows, op.stride, op.intermediate_size));
  BW_TRY(check_rows(op.up, given.rows, op.stride, op.intermediate_size));
  BW_TRY(check_memory(op.out, {given.rows, op.intermediate_size}));
  return check_quantized_inputs(op.quantized_inputs, given.rows);
}

int32_t check(const bw_attention &op, const Given &given) {
  BW_TRY(check_sizes(op));
  const int64_t query_size = (int64_t)op.num_heads * op.head_dim, key_size = (int64_t)op.num_kv_heads * op.head_dim;
  const int64_t end = (int64_t)given.step.position + given.step.rows, half = op.rotary_dim / 2;
  BW_NEED(given.rows == given.step.rows, BW_BAD_SHAPE);  // never limited to the logit rows
  BW_NEED(end <= op.context_length, BW_BAD_POSITION);
  BW_TRY(check_rows(op.q, given.rows, op.stride, query_size));
  BW_TRY(check_rows(op.k, given.rows, op.stride, key_size));
  BW_TRY(check_rows(op.v, given.rows, op.stride, key_size));
  BW_TRY(check_optional(op.q_norm, {op.norm_all_heads ? query_size : op.head_dim}));
  BW_TRY(check_optional(op.k_norm, {op.norm_all_heads ? key_size : op.head_dim}));
  if (half) {
    for (const bw_memory<const float> &table : {op.cos, op.sin}) {
      const int32_t error = check_memory(table, {end, half});
      if (error) return error == BW_TOO_SHORT ? BW_BAD_POSITION : error;
    }
  }
  const int64_t item = op.fp16_cache ? 2 : 4;
  BW_TRY(check_memory({op.key_cache.at, op.key_cache.bytes}, {op.context_length, key_size}, item));
  BW_TRY(check_memory({op.value_cache.at, op.value_cache.bytes}, {op.context_length, key_size}, item));
  if (op.max_splits > 1) {
    BW_TRY(check_memory(op.partial, {op.max_splits, BW_SPLIT_KV_ROWS, op.num_heads, op.head_dim + 2}));
  }
  BW_TRY(check_memory(op.out, {given.rows, query_size}));
  BW_NEED(attention_scratch(op) <= given.program.scratch_size, BW_TOO_SHORT);
  return check_quantized_inputs(op.quantized_inputs, given.rows);
}

int32_t check(const bw_logits &op, const Given &given) {
  BW_NEED(in(op.vocab_size, 1, MAX_SIZE), BW_BAD_VALUE);
  return check_memory(given.step.logits, {given.rows, op.vocab_size});
}

int32_t check(const bw_op &op, const Given &given) {
  switch (op.kind) {
    case BW_EMBEDDING:
      BW_NEED(!op.logit_rows_only, BW_BAD_VALUE);
      return check(*(const bw_embedding *)op.args.at, given);
    case BW_RMSNORM: return check(*(const bw_rmsnorm *)op.args.at, given);
    case BW_MATMUL: return check(*(const bw_matmul *)op.args.at, given);
    case BW_GATED_ACTIVATION: return check(*(const bw_gated_activation *)op.args.at, given);
    case BW_QK_NORM_ROPE:
    case BW_ATTENTION:
    case BW_SPLIT_KV_REDUCE: return check(*(const bw_attention *)op.args.at, given);
    case BW_LOGITS: return check(*(const bw_logits *)op.args.at, given);
    default: return BW_BAD_VALUE;
  }
}

}  // namespace

int32_t check_memory(const void *at, int64_t bytes, std::initializer_list<int64_t> lengths, int64_t item,
                     int64_t align) {
  int64_t needed = item;
  for (const int64_t length : lengths) {
    BW_NEED(length >= 0, BW_BAD_VALUE);
    BW_NEED(!__builtin_mul_overflow(needed, length, &needed), BW_TOO_SHORT);
  }
  BW_NEED(at && (uintptr_t)at % (uintptr_t)align == 0, BW_BAD_POINTER);
  return needed <= bytes ? BW_DONE : BW_TOO_SHORT;
}

int32_t check_threads(int32_t threads) { return in(threads, 1, MAX_THREADS) ? BW_DONE : BW_BAD_VALUE; }

int32_t check_sizes(const bw_matrix &w) {
  BW_NEED(in(w.weights, BW_F32, BW_GRID), BW_BAD_VALUE);
  BW_NEED(in(w.out_features, 1, MAX_SIZE) && in(w.in_features, 32, MAX_SIZE) && w.in_features % 32 == 0, BW_BAD_VALUE);
  if (w.weights != BW_GRID) return w.block == 0 && !w.order.at ? BW_DONE : BW_BAD_VALUE;
  const bool bits = w.bits == 2 || w.bits == 4 || w.bits == 6 || w.bits == 8;
  BW_NEED((w.block == 16 && bits) || (w.block == 32 && (bits || w.bits == 3 || w.bits == 5)), BW_BAD_VALUE);
  BW_NEED(in(w.planes, 1, 2) && in(w.zero, 0, 255) && in(w.scales, BW_SYMMETRIC, BW_NESTED), BW_BAD_VALUE);
  BW_NEED(in(w.group_size, w.block, MAX_SIZE) && w.group_size % w.block == 0, BW_BAD_VALUE);
  if (w.scales == BW_NESTED) {
    BW_NEED(in(w.super_block_size, w.group_size, w.in_features), BW_BAD_VALUE);
    BW_NEED(w.super_block_size % w.group_size == 0 && w.in_features % w.super_block_size == 0, BW_BAD_VALUE);
  }
  return BW_DONE;
}

int32_t check_sizes(const bw_activations &x) {
  BW_NEED(in(x.rows, 0, MAX_ROWS) && in(x.in_features, 1, MAX_SIZE), BW_BAD_VALUE);
  if (!x.block) return BW_DONE;
  BW_NEED((x.block == 16 || x.block == 32) && x.in_features % x.block == 0 && in(x.planes, 1, 2), BW_BAD_VALUE);
  return BW_DONE;
}

int32_t check_sizes(const bw_attention &op) {
  BW_NEED(op.num_heads >= 1 && op.num_kv_heads >= 1 && op.num_heads % op.num_kv_heads == 0, BW_BAD_VALUE);
  BW_NEED(op.head_dim >= 16 && op.head_dim % 16 == 0, BW_BAD_VALUE);
  BW_NEED((int64_t)op.num_heads * op.head_dim <= MAX_QUERY_SIZE, BW_BAD_VALUE);
  BW_NEED((int64_t)op.num_kv_heads * op.head_dim <= MAX_KEY_SIZE, BW_BAD_VALUE);
  BW_NEED(in(op.rotary_dim, 0, op.head_dim) && op.rotary_dim % 2 == 0 && op.window >= 0, BW_BAD_VALUE);
  BW_NEED(in(op.context_length, 16, MAX_SIZE) && op.context_length % 16 == 0, BW_BAD_VALUE);
  BW_NEED(in(op.max_splits, 0, MAX_ROWS) && (!op.fp16_cache || HALVES), BW_BAD_VALUE);
  return BW_DONE;
}

int32_t check_matrix(const bw_matrix &w) {
  BW_TRY(check_sizes(w));
  const int64_t tiles = linear::tiles_of(w), lanes = linear::LANES;
  BW_TRY(check_memory({w.data.at, w.data.bytes}, {tiles, linear::bytes_of_tile(w)}, 1));
  BW_TRY(check_optional(w.bias, {w.out_features}));
  if (w.weights == BW_F32) return (uintptr_t)w.data.at % 4 ? BW_BAD_POINTER : BW_DONE;
  if (w.weights != BW_GRID) return (uintptr_t)w.data.at % 2 ? BW_BAD_POINTER : BW_DONE;
  const std::initializer_list<int64_t> groups = {tiles, linear::groups_of(w), lanes};
  BW_TRY(check_memory(w.scale, groups, w.scales == BW_NESTED ? 1 : 2));
  if (w.scales == BW_ZEROS) BW_TRY(check_memory(w.offset, groups, 1));
  if (w.scales == BW_MINIMUMS) BW_TRY(check_memory(w.offset, groups, 2));
  if (w.scales == BW_NESTED) {
    if (w.offset.at) BW_TRY(check_memory(w.offset, groups, 1));
    BW_TRY(check_memory(w.steps, {tiles, w.in_features / w.super_block_size, 2, lanes}, 2));
  }
  return check_order(w.order, w.in_features);
}

int32_t check_activations(const bw_activations &x, int32_t rows) {
  BW_TRY(check_sizes(x));
  BW_NEED(in(rows, 0, MAX_ROWS), BW_BAD_VALUE);
  BW_TRY(check_memory(x.x, {rows, x.in_features}));
  if (!x.block) return BW_DONE;
  const int64_t blocks = x.in_features / x.block;
  BW_NEED(in(x.stride, x.in_features, int64_t(1) << 40), BW_BAD_SHAPE);
  BW_TRY(check_memory(x.values, {rows, x.planes, x.stride}));
  BW_TRY(check_memory(x.scale, {rows, x.planes, blocks}));
  BW_TRY(check_memory(x.sum, {rows, x.planes, blocks}));
  return check_memory(x.total, {rows, x.planes, blocks});
}

int32_t check_product(const bw_matrix &w, const bw_activations &x, int32_t rows) {
  BW_TRY(check_matrix(w));
  BW_TRY(check_activations(x, rows));
  BW_NEED(w.in_features == x.in_features, BW_BAD_SHAPE);
  return w.weights != BW_GRID || (w.block == x.block && w.planes == x.planes) ? BW_DONE : BW_BAD_SHAPE;
}

int32_t check_args(const bw_op &op) {
  constexpr size_t attention = sizeof(bw_attention);
  constexpr size_t sizes[] = {sizeof(bw_embedding), sizeof(bw_rmsnorm), sizeof(bw_matmul), sizeof(bw_gated_activation),
                              attention,        attention,       attention,             sizeof(bw_logits)};
  BW_NEED(in(op.kind, 0, BW_KINDS - 1), BW_BAD_VALUE);
  BW_NEED(op.args.at && (uintptr_t)op.args.at % (op.kind == BW_LOGITS ? 4 : 8) == 0, BW_BAD_POINTER);
  return op.args.bytes == (int64_t)sizes[op.kind] ? BW_DONE : BW_BAD_SHAPE;
}

int32_t check_lists(const bw_program &program) {
  BW_TRY(check_threads(program.threads));
  BW_NEED(in(program.count, 0, MAX_SIZE), BW_BAD_VALUE);
  BW_NEED(in(program.activation_count, 0, MAX_SIZE), BW_BAD_VALUE);
  BW_NEED(in(program.logit_activations, 0, program.activation_count), BW_BAD_VALUE);
  BW_TRY(check_memory(program.ops, {program.count}));
  if (program.activation_count) BW_TRY(check_memory(program.activations, {program.activation_count}));
  BW_TRY(check_optional(program.op_nanoseconds, {BW_KINDS}));
  BW_NEED(in(program.scratch_size, 0, int64_t(1) << 40), BW_BAD_VALUE);
  if (program.scratch_size) BW_TRY(check_memory(program.scratch, {program.threads, program.scratch_size}));
  for (int32_t i = 0; i < program.count; i++) BW_TRY(check_args(program.ops.at[i]));
  for (int32_t i = 0; i < program.activation_count; i++) BW_NEED(program.activations.at[i], BW_BAD_POINTER);
  return BW_DONE;
}

int32_t check_step(const bw_program &program, const bw_step &step, int32_t first_logit_row, int32_t logit_rows) {
  BW_NEED(in(step.position, 0, MAX_SIZE), BW_BAD_POSITION);
  BW_TRY(check_memory(step.tokens, {step.rows}));
  for (int32_t i = 0; i < program.count; i++) {
    const bool logit_rows_only = program.ops.at[i].logit_rows_only;
    if (logit_rows_only && logit_rows == 0) break;
    const int32_t first = logit_rows_only ? first_logit_row : 0, rows = logit_rows_only ? logit_rows : step.rows;
    const Given given = {program, step, first, rows};
    BW_TRY(check(program.ops.at[i], given));
  }
  return BW_DONE;
}

}  // namespace bw

extern "C" const char *bw_reason(int32_t error) {
  switch (error) {
    case BW_BAD_VALUE: return "a size or a kind is out of range";
    case BW_BAD_POINTER: return "memory is missing or misaligned";
    case BW_TOO_SHORT: return "memory is shorter than its shape";
    case BW_BAD_SHAPE: return "two shapes do not match";
    case BW_BAD_ORDER: return "an input order has an index out of range";
    case BW_BAD_TOKEN: return "a token is outside of the vocabulary";
    case BW_BAD_POSITION: return "a token is beyond the end of the cache or of the RoPE table";
    default: return "";
  }
}
