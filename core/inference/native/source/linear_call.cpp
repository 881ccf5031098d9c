// One whole product on the pool, for those who compute layer by layer.
#include "bitwright.h"
#include "pool.h"

namespace {

struct Call {
  const bw_matrix *w;
  bw_activations *x;
  float *y;
};

void quantize(void *what, int32_t row) {
  const Call &call = *static_cast<Call *>(what);
  bw_quantize_rows(call.x, call.w->order, row, row + 1);
}

void multiply(void *what, int32_t piece) {
  const Call &call = *static_cast<Call *>(what);
  bw_linear_tile(call.w, call.x, call.y, call.w->outputs, 0, piece);
}

}  // namespace

extern "C" void bw_multiply(const bw_matrix *w, bw_activations *x, float *y, int32_t threads) {
  Call call{w, x, y};
  if (x->block && x->rows < 8) {
    bw_quantize_rows(x, w->order, 0, x->rows);
  } else if (x->block) {
    bw_parallel(threads, x->rows, quantize, &call);
  }
  bw_parallel(threads, bw_linear_tiles(w, x->rows), multiply, &call);
}
