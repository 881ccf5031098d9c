// What is called from outside layer by layer: whole products on the pool, packing, single rows.
#include "checks.h"
#include "linear_weights.h"
#include "pool.h"

using namespace bw::linear;

namespace {

struct Call {
  const bw_matrix *w;
  bw_activations *x;
  float *y;
};

void quantize(void *what, int32_t row) {
  const Call &call = *static_cast<Call *>(what);
  quantize_rows(*call.x, call.w->order, row, row + 1);
}

void multiply(void *what, int32_t piece) {
  const Call &call = *static_cast<Call *>(what);
  compute_piece(*call.w, *call.x, call.y, call.w->outputs, false, piece);
}

}  // namespace

extern "C" {

int32_t bw_multiply(const bw_matrix *w, bw_activations *x, float *y, int64_t bytes, int32_t threads) {
  int32_t error = bw::check_product(*w, *x, x->rows);
  if (!error) error = bw::check_threads(threads);
  if (!error) error = bw::check_memory(bw_memory<float>{y, bytes}, {x->rows, w->outputs});
  if (error || !x->rows) return error;
  Call call{w, x, y};
  if (x->block && x->rows < 8) {
    quantize_rows(*x, w->order, 0, x->rows);
  } else if (x->block) {
    bw_parallel(threads, x->rows, quantize, &call);
  }
  bw_parallel(threads, pieces_of(*w, x->rows), multiply, &call);
  return BW_DONE;
}

int32_t bw_matrix_row(const bw_matrix *w, int32_t row, float *to, int64_t bytes) {
  int32_t error = bw::check_matrix(*w);
  if (!error && (row < 0 || row >= w->outputs)) error = BW_BAD_VALUE;
  if (!error) error = bw::check_memory(bw_memory<float>{to, bytes}, {w->inputs});
  if (!error) row_of(*w, row, to);
  return error;
}

int64_t bw_data_bytes(const bw_matrix *w) {
  const int32_t error = bw::check_sizes(*w);
  return error ? error : tiles_of(*w) * bytes_of_tile(*w);
}

int32_t bw_pack(const bw_matrix *w, const void *weights, int64_t bytes) {
  int32_t error = bw::check_matrix(*w);
  if (error) return error;
  if (w->weights == BW_GRID) {
    const auto *ints = static_cast<const uint8_t *>(weights);
    error = bw::check_memory(bw_memory<const uint8_t>{ints, bytes}, {w->outputs, w->inputs});
    if (!error) pack_grid(*w, ints, static_cast<uint8_t *>(w->data.at), 0, tiles_of(*w));
    return error;
  }
  error = bw::check_memory(bw_memory<const void>{weights, bytes}, {w->outputs, w->inputs}, w->weights == BW_F32 ? 4 : 2);
  if (!error) pack_dense(*w, weights, w->data.at, 0, tiles_of(*w));
  return error;
}
}
