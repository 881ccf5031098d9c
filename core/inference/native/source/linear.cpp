// Division of a matmul into pieces, and the choice of the kernel for each.
#include "linear_weights.h"

namespace bw::linear {
namespace {

constexpr int FEW = 6;              // rows up to which reading the weights dominates
constexpr int64_t PIECE = 32768;    // bytes of weights of a piece with few rows
constexpr int TILES_OF_PIECE = 4;   // tiles of a piece with many rows
constexpr int64_t ROW_BYTES = 480 << 10;  // bytes of activations of a piece, which stay in the L2 cache
constexpr int LEAST_ROWS = 48;

int64_t upwards(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The division of a matmul: pieces of `tiles` tiles by `rows` rows, `across` of them along the outputs.
struct Cut {
  int tiles, rows, across, pieces;
};

Cut cut_of(const bw_matrix &w, int rows) {
  const int all = tiles_of(w);
  if (rows <= FEW) {
    const int64_t worth = PIECE / bytes_of_tile(w), tiles = worth > 1 ? worth : 1, across = upwards(all, tiles);
    return {static_cast<int>(tiles), rows, static_cast<int>(across), static_cast<int>(across)};
  }
  const int64_t bytes = static_cast<int64_t>(w.in_features) * (w.weights == BW_GRID ? w.planes : 4);
  const int64_t fit = ROW_BYTES / bytes > LEAST_ROWS ? ROW_BYTES / bytes : LEAST_ROWS;
  const int64_t share = even_share(rows, static_cast<int>(fit)), whole = upwards(share, ROWS) * ROWS;
  const int64_t across = upwards(all, TILES_OF_PIECE);
  const int64_t pieces = across * upwards(rows, whole);
  return {TILES_OF_PIECE, static_cast<int>(whole), static_cast<int>(across), static_cast<int>(pieces)};
}

// Initialize y: the bias or 0; with `keep` add the bias to y. Outputs [first, last) of `rows` rows.
void begin(const bw_matrix &w, float *y, int64_t stride, int rows, int first, int last, bool keep) {
  if (keep && !w.bias) return;
  for (int row = 0; row < rows; row++, y += stride) {
    for (int i = first; i < last; i++) y[i] = (keep ? y[i] : 0) + (w.bias ? w.bias[i] : 0);
  }
}

}  // namespace

int64_t bytes_of_tile(const bw_matrix &w) {
  if (w.weights == BW_GRID) return tile_bytes(w);
  return static_cast<int64_t>(w.in_features) * LANES * (w.weights == BW_F32 ? 4 : 2);
}

int32_t pieces_of(const bw_matrix &w, int32_t rows) { return cut_of(w, rows).pieces; }

void compute_piece(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, bool add, int32_t piece) {
  const Cut cut = cut_of(w, x.rows);
  // Consecutive pieces share rows, so that a thread finds them in its cache.
  const int first = piece % cut.across * cut.tiles, all = tiles_of(w);
  const int last = first + cut.tiles < all ? first + cut.tiles : all;
  const int row = piece / cut.across * cut.rows, end = row + cut.rows < x.rows ? row + cut.rows : x.rows;
  const int outputs = last * LANES < w.out_features ? last * LANES : w.out_features;
  begin(w, y + row * stride, stride, end - row, first * LANES, outputs, add);
  (w.weights == BW_GRID ? grid_rows : dense_rows)(w, x, y, stride, first, last, row, end);
}

void row_of(const bw_matrix &w, int32_t row, float *to) { (w.weights == BW_GRID ? grid_row : dense_row)(w, row, to); }

}  // namespace bw::linear

extern "C" int32_t bw_instructions(void) { return bw::linear::INSTRUCTIONS; }
