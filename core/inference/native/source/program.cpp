#include "program.h"

#include <chrono>

#include "attention.h"
#include "checks.h"
#include "linear_weights.h"
#include "operations.h"
#include "pool.h"
#include "simd.h"

namespace bw {
namespace {

constexpr int32_t ROWS_AT_ONCE = 16;  // keys that are neighbours in a tile of the cache
constexpr int32_t LOGITS_AT_ONCE = 4096;
constexpr auto ASK_EVERY = std::chrono::milliseconds(10);

using Clock = std::chrono::steady_clock;

// State that the threads share during one step.
struct Run {
  const bw_program *program;
  const bw_step *step;
  int32_t first_logit_row, logit_rows;
  bool stopped;  // written by the calling thread between two barriers
};

int32_t pieces_at_once(int32_t count, int32_t threads) {
  // Few enough that the others do not wait for a slow thread, enough that claiming pieces costs little.
  const int32_t grain = count / (threads * 12);
  return grain < 1 ? 1 : grain;
}

void run_matmul(const bw_matmul &op, const Run &run, int32_t rows, Team *team) {
  int32_t ends[BW_PARTS], count = 0;
  for (int32_t i = 0; i < op.count; i++) ends[i] = count += linear::pieces_of(*op.matrix[i], rows);
  team->share(count, pieces_at_once(count, team->threads), [&](int32_t piece) {
    int32_t part = 0, before = 0;
    while (piece >= ends[part]) before = ends[part++];
    float *out = op.out[part] ? op.out[part] : run.step->logits;
    linear::compute_piece(*op.matrix[part], *op.in[part], out, op.stride[part], op.add, piece - before);
  });
}

void run_logits(const bw_logits &op, const Run &run, int32_t rows, Team *team) {
  const int32_t parts = (op.vocab_size + LOGITS_AT_ONCE - 1) / LOGITS_AT_ONCE;
  team->share(rows * parts, 1, [&](int32_t piece) {
    const int32_t first = piece % parts * LOGITS_AT_ONCE, last = first + LOGITS_AT_ONCE;
    float *logits = run.step->logits + (int64_t)(piece / parts) * op.vocab_size;
    scale_logits(op, logits, first, last < op.vocab_size ? last : op.vocab_size);
  });
}

void run_qk_norm_rope(const bw_attention &op, const Run &run, int32_t rows, Team *team) {
  const int32_t position = run.step->position, before = position % ROWS_AT_ONCE;
  team->share((before + rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE, 1, [&](int32_t piece) {
    const int32_t first = piece * ROWS_AT_ONCE - before, last = first + ROWS_AT_ONCE;
    qk_norm_rope(op, position, first < 0 ? 0 : first, last < rows ? last : rows);
  });
}

void run_op(const bw_op &op, Run &run, Team *team, int32_t thread) {
  const int32_t rows = op.logit_rows_only ? run.logit_rows : run.step->rows;
  const int32_t first = op.logit_rows_only ? run.first_logit_row : 0;
  const int32_t position = run.step->position;
  switch (op.kind) {
    case BW_EMBEDDING:
      return team->share(rows, 1, [&](int32_t row) {
        embedding(*(const bw_embedding *)op.args.at, run.step->tokens[row], row);
      });
    case BW_RMSNORM:
      return team->share(rows, 1, [&](int32_t row) { rmsnorm(*(const bw_rmsnorm *)op.args.at, first + row, row); });
    case BW_MATMUL: return run_matmul(*(const bw_matmul *)op.args.at, run, rows, team);
    case BW_GATED_ACTIVATION:
      return team->share(rows, 1, [&](int32_t row) {
        gated_activation(*(const bw_gated_activation *)op.args.at, row);
      });
    case BW_QK_NORM_ROPE: return run_qk_norm_rope(*(const bw_attention *)op.args.at, run, rows, team);
    case BW_ATTENTION: {
      const bw_attention &attention_op = *(const bw_attention *)op.args.at;
      const AttentionPieces pieces = attention_pieces(attention_op, rows, position, team->threads);
      float *scratch = run.program->scratch + run.program->scratch_size * thread;
      return team->share(pieces.count, 1, [&](int32_t piece) {
        attention(attention_op, pieces, rows, position, piece, scratch);
      });
    }
    case BW_SPLIT_KV_REDUCE: {
      const bw_attention &attention_op = *(const bw_attention *)op.args.at;
      const AttentionPieces pieces = attention_pieces(attention_op, rows, position, team->threads);
      if (pieces.splits == 1 && attention_op.quantized_inputs.count == 0) return;  // nothing to do, no barrier needed
      return team->share(rows, 1, [&](int32_t row) { split_kv_reduce(attention_op, pieces, rows, row); });
    }
    case BW_LOGITS: return run_logits(*(const bw_logits *)op.args.at, run, rows, team);
    default: return team->meet();
  }
}

// Run all operations in order, with a barrier after each. Called by every thread of the team.
void run_op_graph(void *given, Team *team, int32_t thread) {
  Run &run = *(Run *)given;
  const bw_program &program = *run.program;
  Clock::time_point asked = Clock::now(), before = asked;
  for (int32_t i = 0; i < program.count; i++) {
    const bw_op &op = program.ops.at[i];
    if (op.logit_rows_only && run.logit_rows == 0) break;
    run_op(op, run, team, thread);
    if (program.op_nanoseconds && thread == 0) {
      const Clock::time_point now = Clock::now();
      program.op_nanoseconds.at[op.kind] += std::chrono::duration_cast<std::chrono::nanoseconds>(now - before).count();
      before = now;
    }
    if (!run.step->should_stop || op.kind != BW_ATTENTION) continue;
    if (thread == 0 && Clock::now() - asked > ASK_EVERY) {
      run.stopped = run.step->should_stop() != 0;
      asked = Clock::now();
    }
    team->meet();
    if (run.stopped) return;
  }
}

// Set the rows of all activations and validate the program and the step.
int32_t prepare(Run &run) {
  const bw_program &program = *run.program;
  const bw_step &step = *run.step;
  if (const int32_t error = check_lists(program)) return error;
  if (step.rows < 1 || step.rows > MAX_ROWS || step.wanted < BW_NO_LOGITS || step.wanted > BW_ALL_LOGITS) {
    return BW_BAD_VALUE;
  }
  run.logit_rows = step.wanted == BW_NO_LOGITS ? 0 : step.wanted == BW_LAST_LOGITS ? 1 : step.rows;
  run.first_logit_row = step.rows - run.logit_rows;
  for (int32_t i = 0; i < program.activation_count; i++) {
    const bool logit_rows_only = i >= program.activation_count - program.logit_activations;
    program.activations.at[i]->rows = logit_rows_only ? run.logit_rows : step.rows;
  }
  return check_step(program, step, run.first_logit_row, run.logit_rows);
}

}  // namespace
}  // namespace bw

extern "C" {

int32_t bw_run(const bw_program *program, const bw_step *step) {
  bw::Run run = {};
  run.program = program;
  run.step = step;
  if (const int32_t error = bw::prepare(run)) return error;
  bw::run_team(program->threads, bw::run_op_graph, &run);
  return run.stopped ? BW_STOPPED : BW_DONE;
}

int32_t bw_check(const bw_program *program, const bw_step *step) {
  bw::Run run = {};
  run.program = program;
  run.step = step;
  return bw::prepare(run);
}

int64_t bw_scratch_size(const bw_op *ops, int32_t count) {
  int64_t most = 0;
  for (int32_t i = 0; i < count; i++) {
    if (ops[i].kind != BW_ATTENTION) continue;
    if (const int32_t error = bw::check_args(ops[i])) return error;
    if (const int32_t error = bw::check_sizes(*(const bw_attention *)ops[i].args.at)) return error;
    const int64_t size = bw::attention_scratch(*(const bw_attention *)ops[i].args.at);
    if (size > most) most = size;
  }
  return (most + 31) / 32 * 32;
}

int32_t bw_has_fp16_cache() { return bw::HALVES ? 1 : 0; }

int32_t bw_struct_size(int32_t which) {
  const size_t sizes[] = {
      sizeof(bw_matrix), sizeof(bw_activations), sizeof(bw_op), sizeof(bw_quantized_inputs), sizeof(bw_embedding),
      sizeof(bw_rmsnorm), sizeof(bw_matmul), sizeof(bw_gated_activation), sizeof(bw_attention), sizeof(bw_logits),
      sizeof(bw_program), sizeof(bw_step),
  };
  return which >= 0 && which < (int32_t)(sizeof sizes / sizeof *sizes) ? (int32_t)sizes[which] : 0;
}
}
