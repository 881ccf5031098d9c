// Matmuls of packed weights with quantized activations: a tile is loaded, unpacked in registers and multiplied by up to
// ROWS rows at once. With few rows reading the weights dominates; with many rows the tile stays in the L1 and L2 caches
// and the byte products dominate.
#include "linear_weights.h"

namespace bw::linear {
namespace {

// Distance of the software prefetch of weights; with several rows the hardware prefetch is not enough.
constexpr int AHEAD = 2048;

// Add the product of a tile and rows [first, first + V), counted in planes, to f.
template <int BITS, int RUN, int V>
void tile_by_rows(const bw_matrix &w, const bw_activations &x, int tile, int first, Floats (&f)[V]) {
  constexpr int CHAINS = V == 1 ? 2 : 1;  // two independent sums hide the latency
  const int64_t blocks = x.in_features / (RUN * 4), per_group = w.group_size / (RUN * 4), groups = groups_of(w);
  const uint8_t *data = tile_at(w, tile);
  const int8_t *values = x.values + first * x.stride;
  const float *scale = x.scale + first * blocks, *sum = x.sum + first * blocks;
  for (int64_t group = 0, block = 0; group < groups; group++) {
    Floats inner[V];
    float sums[V];
    for (int v = 0; v < V; v++) inner[v] = set_floats(0), sums[v] = 0;
    const int64_t end = block + per_group < blocks ? block + per_group : blocks;
    for (; block < end; block++, data += bytes_of(BITS, RUN)) {
      Ints dots[V][CHAINS];
      Part parts[V][CHAINS];
      for (int v = 0; v < V; v++) {
        for (int chain = 0; chain < CHAINS; chain++) dots[v][chain] = set_ints(0);
      }
      if (V > 1) {
        for (int line = 0; line < bytes_of(BITS, RUN); line += 64) __builtin_prefetch(data + AHEAD + line);
      }
      each<RUN>([&](auto i) __attribute__((always_inline)) {
        constexpr int chain = i % CHAINS;
        Bytes step = step_of<BITS, i>(data);
        if (V > 1) keep(step);
        for (int v = 0; v < V; v++) {
          dot<BITS>(dots[v][chain], parts[v][chain], step, four_bytes(values + v * x.stride + block * RUN * 4 + i * 4));
        }
      });
      for (int v = 0; v < V; v++) {
        for (int chain = 0; chain < CHAINS; chain++) flush(dots[v][chain], parts[v][chain]);
        const Ints all = CHAINS == 2 ? add(dots[v][0], dots[v][CHAINS - 1]) : dots[v][0];
        inner[v] = fused(to_floats(all), set_floats(scale[v * blocks + block]), inner[v]);
        sums[v] += sum[v * blocks + block];
      }
    }
    const Grid grid = grid_of<BITS>(w, tile, group);
    for (int v = 0; v < V; v++) {
      f[v] = fused(grid.scale, inner[v], f[v]);
      f[v] = fused(grid.offset, set_floats(sums[v]), f[v]);
    }
  }
}

template <int BITS, int RUN, int V>
void some_rows(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int first) {
  Floats f[V];
  for (int v = 0; v < V; v++) f[v] = set_floats(0);
  tile_by_rows<BITS, RUN, V>(w, x, tile, first, f);
  for (int v = 0; v < V; v++) {
    add_to(y + (first + v) / x.planes * stride + tile * LANES, f[v], w.out_features - tile * LANES);
  }
}

// Call the instance for `rows` rows, at most V.
template <int BITS, int RUN, int V>
void choose_rows(int rows, const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int first) {
  if (rows == V) return some_rows<BITS, RUN, V>(w, x, y, stride, tile, first);
  if constexpr (V > 1) choose_rows<BITS, RUN, V - 1>(rows, w, x, y, stride, tile, first);
}

template <int BITS, int RUN>
void tiles_by_rows(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int last_tile,
                   int first, int last) {
  for (; tile < last_tile; tile++) {
    for (int row = first, share; row < last; row += share) {
      share = even_share(last - row, ROWS);
      choose_rows<BITS, RUN, ROWS>(share, w, x, y, stride, tile, row);
    }
  }
}

}  // namespace

void grid_rows(const bw_matrix &w, const bw_activations &x, float *y, int64_t stride, int tile, int last_tile,
               int first, int last) {
  const bool halves = x.block == 16;
  first *= x.planes;
  last *= x.planes;
  switch (w.bits) {
    case 2: return (halves ? tiles_by_rows<2, 4> : tiles_by_rows<2, 8>)(w, x, y, stride, tile, last_tile, first, last);
    case 3: return tiles_by_rows<3, 8>(w, x, y, stride, tile, last_tile, first, last);
    case 4: return (halves ? tiles_by_rows<4, 4> : tiles_by_rows<4, 8>)(w, x, y, stride, tile, last_tile, first, last);
    case 5: return tiles_by_rows<5, 8>(w, x, y, stride, tile, last_tile, first, last);
    case 6: return (halves ? tiles_by_rows<6, 4> : tiles_by_rows<6, 8>)(w, x, y, stride, tile, last_tile, first, last);
    default: return (halves ? tiles_by_rows<8, 4> : tiles_by_rows<8, 8>)(w, x, y, stride, tile, last_tile, first, last);
  }
}

}  // namespace bw::linear
