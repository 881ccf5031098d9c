// The functions of bitwright.h for single matrices: matmul on the thread pool, single rows.
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
  compute_piece(*call.w, *call.x, call.y, call.w->out_features, false, piece);
}

}  // namespace

extern "C" {

int32_t bw_multiply(const bw_matrix *w, bw_activations *x, float *y, int64_t bytes, int32_t threads) {
  int32_t error = bw::check_product(*w, *x, x->rows);
  if (!error) error = bw::check_threads(threads);
  if (!error) error = bw::check_memory(bw_memory<float>{y, bytes}, {x->rows, w->out_features});
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
  if (!error && (row < 0 || row >= w->out_features)) error = BW_BAD_VALUE;
  if (!error) error = bw::check_memory(bw_memory<float>{to, bytes}, {w->in_features});
  if (!error) row_of(*w, row, to);
  return error;
}

int64_t bw_data_bytes(const bw_matrix *w) {
  const int32_t error = bw::check_sizes(*w);
  return error ? error : tiles_of(*w) * bytes_of_tile(*w);
}

int32_t bw_pack(const bw_matrix *w, const void *weights, int64_t bytes, int32_t first, int32_t rows) {
  int32_t error = bw::check_matrix(*w);
  if (error) return error;
  if (first < 0 || first % LANES || rows < 1 || rows > w->out_features - first) return BW_BAD_VALUE;
  if (rows % LANES && first + rows != w->out_features) return BW_BAD_VALUE;
  const int tile = first / LANES, last = tile + (rows + LANES - 1) / LANES;
  const int64_t item = w->weights == BW_GRID ? 1 : w->weights == BW_F32 ? 4 : 2;
  error = bw::check_memory(bw_memory<const void>{weights, bytes}, {rows, w->in_features}, item);
  if (error) return error;
  if (w->weights == BW_GRID) {
    pack_grid(*w, static_cast<const uint8_t *>(weights), static_cast<uint8_t *>(w->data.at), tile, last);
  } else {
    pack_dense(*w, weights, w->data.at, tile, last);
  }
  return BW_DONE;
}
}
