// Random matmuls and random programs, valid and invalid, for sanitizers: no memory outside of the given buffers is read
// or written for any sizes, positions and tokens. The results of valid matmuls are also compared with plain sums.
//
//   fuzz SEED CASES [FIRST]    cases FIRST (0) to FIRST + CASES; a case depends only on its seed and number
//
// To run it from the root of the repository (-march=haswell and -march=x86-64 select the other kernels):
//
//   S=core/inference/native/source
//   FLAGS="-std=c++17 -O1 -g -w -march=native -pthread -fsanitize=address,undefined -fno-sanitize-recover=all"
//   g++ $FLAGS -I $S tests/core/inference/native/fuzz.cpp $S/*.cpp -o /tmp/fuzz && /tmp/fuzz 1 10000
//
// With -fsanitize=thread it detects data races instead. tests/core/inference/native/test_fuzz.py runs a few hundred cases.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <vector>

#include "pool.h"
#include "program.h"

namespace {

uint64_t seed, number;
bool wrong;

void tell_how_to_repeat() {
  std::fprintf(stderr, "again with: fuzz %llu 1 %llu\n", (unsigned long long)seed, (unsigned long long)number);
}

[[noreturn]] void fail(const char *what) {
  std::fprintf(stderr, "%s\n", what);
  tell_how_to_repeat();
  std::_Exit(1);
}

// Random numbers that are the same on every machine (SplitMix64).
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  int32_t below(int32_t count) { return (int32_t)(next() % (uint64_t)count); }
  int32_t from(int32_t low, int32_t high) { return low + below(high - low + 1); }
  bool one_in(int32_t count) { return below(count) == 0; }
  int32_t of(std::initializer_list<int32_t> values) { return values.begin()[below((int32_t)values.size())]; }
  float number() { return (float)(next() >> 40) / (float)(1 << 23) - 1; }
};

enum Fill { NOTHING, BYTES, FLOATS, HALVES };

uint16_t small_half(Random &random) { return (uint16_t)(random.below(2) << 15 | random.from(8, 13) << 10 | random.below(1024)); }

// One case with its memory. In a valid case, each buffer has exactly the required size; in an invalid case, one buffer is
// shorter or missing, or one number of a struct is wrong.
struct Case {
  Random random;
  int32_t shortened = -1, missing = -1;  // indexes of buffers
  int32_t given = 0, packed = -1;  // buffers so far; index of the integers that were packed last
  std::vector<void *> owned;
  std::vector<int32_t *> numbers;
  std::vector<std::function<void()>> ends;

  explicit Case(uint64_t from) : random{from} {
    random.next();
    wrong = random.one_in(2);
    if (wrong && random.one_in(2)) (random.one_in(4) ? missing : shortened) = random.below(40);
  }
  Case(const Case &) = delete;
  ~Case() {
    for (auto &end : ends) end();
    for (void *each : owned) std::free(each);
  }

  template <class T>
  bw_memory<T> memory(int64_t bytes, Fill fill = BYTES) {
    if (given++ == missing) return {nullptr, bytes};
    if (given - 1 == shortened && bytes > 0) bytes -= random.from(1, (int32_t)bytes);
    void *at = nullptr;
    if (posix_memalign(&at, 64, (size_t)(bytes ? bytes : 1))) std::abort();
    owned.push_back(at);
    if (bytes == 0) std::memset(at, 0, 1);
    for (int64_t i = 0; fill == BYTES && i < bytes; i++) ((uint8_t *)at)[i] = (uint8_t)random.next();
    for (int64_t i = 0; fill == FLOATS && i + 4 <= bytes; i += 4) ((float *)at)[i / 4] = random.number();
    for (int64_t i = 0; fill == HALVES && i + 2 <= bytes; i += 2) ((uint16_t *)at)[i / 2] = small_half(random);
    if (fill == NOTHING) std::memset(at, 0, (size_t)bytes);
    return {(T *)at, bytes};
  }

  template <class T>
  T *made() {
    T *one = new T();
    ends.push_back([one] { delete one; });
    return one;
  }

  void may_change(std::initializer_list<int32_t *> more) { numbers.insert(numbers.end(), more); }

  // In other invalid cases: change one number.
  void change() {
    if (!wrong || shortened >= 0 || missing >= 0 || numbers.empty()) return;
    int32_t &one = *numbers[random.below((int32_t)numbers.size())];
    const int32_t before = one;
    const int32_t others[] = {-1,         0,         1,         before - 1, before + 1,     before + 16,
                              before + 32, 2 * before, 1 << 30, INT32_MAX,  INT32_MIN, random.from(-100, 4000)};
    one = others[random.below(12)];
  }
};

int32_t tiles_of(const bw_matrix &w) { return (w.out_features + 15) / 16; }

bw_matrix *matrix(Case &c, int32_t out_features, int32_t in_features, bool ordered_too) {
  Random &random = c.random;
  bw_matrix &w = *c.made<bw_matrix>();
  w.out_features = out_features, w.in_features = in_features, w.group_size = in_features;
  w.weights = random.of({0, 1, 2, 3, 3, 3, 3});
  Fill fill = w.weights == BW_F32 ? FLOATS : w.weights == BW_F16 ? HALVES : BYTES;
  if (w.weights == BW_GRID) {
    w.scales = random.below(4), w.planes = random.from(1, 2);
    w.block = random.one_in(4) ? 16 : 32;
    w.bits = w.block == 16 ? random.of({2, 4, 6, 8}) : random.of({2, 3, 4, 5, 6, 8});
    w.zero = 1 << (w.bits - 1);
    w.group_size = w.block * random.from(1, in_features / w.block + 1);
    if (w.scales == BW_NESTED) {
      do w.group_size = w.block * random.from(1, in_features / w.block);
      while (in_features % w.group_size);
      w.super_block_size = w.group_size * (in_features / w.group_size);
    }
    const int64_t groups = (int64_t)tiles_of(w) * ((in_features + w.group_size - 1) / w.group_size) * 16;
    const bool nested = w.scales == BW_NESTED;
    w.scale = c.memory<const void>(groups * (nested ? 1 : 2), nested ? BYTES : HALVES);
    if (w.scales == BW_ZEROS) w.offset = c.memory<const void>(groups);
    if (w.scales == BW_MINIMUMS) w.offset = c.memory<const void>(groups * 2, HALVES);
    if (nested && random.one_in(2)) w.offset = c.memory<const void>(groups);
    if (nested) w.steps = c.memory<const void>((int64_t)tiles_of(w) * (in_features / w.super_block_size) * 64, HALVES);
    if (ordered_too && random.one_in(3)) {
      bw_memory<int32_t> order = c.memory<int32_t>(4 * (int64_t)in_features, NOTHING);
      for (int32_t i = 0; order.at && i < order.bytes / 4; i++) order.at[i] = in_features - 1 - i;
      if (wrong && order.at && order.bytes >= 4 && random.one_in(4)) {
        order.at[random.below((int32_t)(order.bytes / 4))] = random.of({-1, in_features, INT32_MAX, INT32_MIN});
      }
      w.order = {order.at, order.bytes};
    }
  }
  if (random.one_in(3)) w.bias = c.memory<const float>(4 * (int64_t)out_features, FLOATS);
  const int64_t bytes = bw_data_bytes(&w);
  if (bytes < 0) fail("a sound matrix is refused");
  w.data = c.memory<void>(bytes, NOTHING);
  const int64_t item = w.weights == BW_GRID ? 1 : w.weights == BW_F32 ? 4 : 2;
  c.packed = c.given;
  bw_memory<uint8_t> weights = c.memory<uint8_t>(item * out_features * in_features, fill);
  for (int64_t i = 0; item == 1 && weights.at && i < weights.bytes; i++) weights.at[i] &= (1 << w.bits) - 1;
  for (int64_t i = 1; w.weights == BW_BF16 && weights.at && i < weights.bytes; i += 2) weights.at[i] = (weights.at[i] & 0x80) | 0x3e;
  // In two pieces if there is more than one tile.
  const int32_t first = out_features > 16 ? 16 * random.from(1, (out_features - 1) / 16) : out_features;
  const int32_t rest = out_features - first;
  int32_t error = bw_pack(&w, weights, weights.bytes, 0, first);
  const int64_t left = weights.bytes - item * first * in_features;
  if (!error && rest && left >= 0) error = bw_pack(&w, weights.at + item * first * in_features, left, first, rest);
  if (error && !wrong) fail("a sound matrix is not packed");
  if (wrong && random.one_in(4)) {
    const int32_t from = random.from(-1, out_features + 1), count = random.from(-1, out_features);
    bw_pack(&w, weights, weights.bytes, from, count);
  }
  c.may_change({&w.weights, &w.bits, &w.scales, &w.zero, &w.out_features, &w.in_features, &w.group_size, &w.block,
                &w.planes, &w.super_block_size});
  return &w;
}

// Activations of a matrix in a buffer.
bw_activations *activations(Case &c, const bw_matrix &w, bw_memory<float> x, int32_t rows) {
  bw_activations &to = *c.made<bw_activations>();
  to.x = {x.at, x.bytes}, to.rows = rows, to.in_features = w.in_features;
  to.block = w.block, to.planes = w.block ? w.planes : 0;
  const int64_t bytes = bw_activation_bytes(&to);
  if (bytes < 0) fail("sound activations are refused");
  if (bytes > 0) {
    bw_memory<void> memory = c.memory<void>(bytes, NOTHING);
    const int32_t error = bw_place_activations(&to, memory, memory.bytes);
    if (error && !wrong) fail("sound activations get no place");
  }
  c.may_change({&to.in_features, &to.block, &to.planes});
  return &to;
}

// Compare y = x W^T + bias with plain sums, within the error of activations of 8 or 15 bits.
void compare(const bw_matrix &w, const bw_activations &x, const float *y) {
  std::vector<float> row(w.in_features);
  for (int32_t i = 0; i < w.out_features; i++) {
    if (bw_matrix_row(&w, i, row.data(), 4 * (int64_t)w.in_features)) fail("a row of a valid matrix is refused");
    for (int32_t r = 0; r < x.rows; r++) {
      double sum = w.bias ? w.bias.at[i] : 0, size = 0;
      for (int32_t k = 0; k < w.in_features; k++) {
        const double part = (double)row[k] * x.x.at[(int64_t)r * w.in_features + k];
        sum += part, size += std::fabs((double)row[k]);
      }
      const double bound = (!w.block ? 1e-4 : w.planes == 2 ? 1e-3 : 0.02) * (size + 1);
      if (!(std::fabs(y[(int64_t)r * w.out_features + i] - sum) <= bound)) fail("a product is wrong");
    }
  }
}

void product() {
  Case c(seed << 32 ^ number);
  Random &random = c.random;
  const int32_t rows = random.of({1, 1, 2, 3, 5, 7, 13, 33, 70}), in_features = 32 * random.from(1, 10);
  bw_matrix &w = *matrix(c, random.from(1, random.one_in(8) ? 700 : 70), in_features, true);
  bw_memory<float> from = c.memory<float>(4 * (int64_t)rows * in_features, FLOATS);
  bw_activations &x = *activations(c, w, from, rows);
  bw_memory<float> y = c.memory<float>(4 * (int64_t)rows * w.out_features, NOTHING);
  c.may_change({&x.rows});
  int32_t threads = random.from(1, 3), row = random.below(w.out_features);
  c.change();
  if (wrong && random.one_in(8)) threads = random.of({0, -1, 257, INT32_MAX});
  if (wrong && random.one_in(8)) row = random.of({-1, w.out_features, INT32_MAX});
  const int32_t error = bw_multiply(&w, &x, y, y.bytes, threads);
  if (error && !wrong) fail("a sound product is refused");
  // The packed integers are no longer needed; all other memory is.
  const bool short_of = c.shortened >= 0 && c.shortened < c.given && c.shortened != c.packed;
  if (!error && short_of) fail("a product with too little memory is computed");
  if (!wrong) compare(w, x, y);
  bw_memory<float> one = c.memory<float>(4 * (int64_t)in_features, NOTHING);
  bw_matrix_row(&w, row, one, one.bytes);
}

// A decoder of random sizes with the operations of program.py, and steps until its cache is full.
struct Decoder {
  Case &c;
  Random &random;
  int32_t rows, hidden_size, intermediate_size, vocab_size;
  std::vector<bw_op> ops;
  std::vector<bw_activations *> forms, logit_forms;
  bw_memory<float> x;

  template <class T>
  void add(bw_kind kind, T *what, bool logit_rows_only = false) {
    ops.push_back({kind, logit_rows_only, {what, sizeof(T)}});
  }

  bw_memory<float> buffer(int32_t columns) { return c.memory<float>(4 * (int64_t)rows * columns, FLOATS); }

  static bw_memory<float> from(bw_memory<float> whole, int64_t column) {
    if (!whole.at || whole.bytes < 4 * column) return {nullptr, 0};
    return {whole.at + column, whole.bytes - 4 * column};
  }

  void reads(bw_quantized_inputs &quantized_inputs, bw_matmul &product, bw_memory<float> buffer,
             bool logit_rows_only = false) {
    for (int32_t i = 0; i < product.count; i++) {
      const bw_matrix &w = *product.matrix[i];
      product.in[i] = activations(c, w, buffer, rows);
      (logit_rows_only ? logit_forms : forms).push_back(product.in[i]);
      if (!w.block) continue;
      quantized_inputs.order[quantized_inputs.count] = w.order;
      quantized_inputs.to[quantized_inputs.count++] = product.in[i];
    }
    c.may_change({&quantized_inputs.count, &product.count});
  }

  bw_matmul *linear(std::initializer_list<int32_t> out_features, int32_t in_features, bw_memory<float> out,
                    int32_t columns) {
    bw_matmul &op = *c.made<bw_matmul>();
    int32_t column = 0;
    for (const int32_t each : out_features) {
      op.matrix[op.count] = matrix(c, each, in_features, true);
      op.out[op.count] = from(out, column);
      op.stride[op.count++] = columns;
      column += each;
    }
    return &op;
  }

  bw_rmsnorm *norm(bw_memory<float> out, bw_memory<float> added) {
    bw_rmsnorm &op = *c.made<bw_rmsnorm>();
    op.hidden_size = hidden_size, op.epsilon = 1e-5f, op.scale = 1, op.x = x, op.out = out;
    if (added.at) op.y = {added.at, added.bytes};
    if (added.at && random.one_in(2)) op.post_norm = c.memory<const float>(4 * (int64_t)hidden_size, FLOATS);
    op.norm = c.memory<const float>(4 * (int64_t)hidden_size, FLOATS);
    c.may_change({&op.hidden_size});
    return &op;
  }

  bw_attention *attention(int32_t context) {
    bw_attention &op = *c.made<bw_attention>();
    op.num_kv_heads = random.from(1, 3), op.num_heads = op.num_kv_heads * random.of({1, 2, 3, 9}), op.head_dim = 16 * random.from(1, 3);
    op.rotary_dim = random.one_in(4) ? 0 : 2 * random.from(1, op.head_dim / 2), op.context_length = context;
    op.fp16_cache = bw_has_fp16_cache() && random.one_in(2), op.window = random.one_in(2) ? 0 : random.from(1, context);
    op.norm_all_heads = random.one_in(2), op.epsilon = 1e-5f, op.scale = 0.2f, op.softcap = random.one_in(2) ? 0 : 20, op.max_splits = 4;
    const int64_t key_size = (int64_t)op.num_kv_heads * op.head_dim, query_size = (int64_t)op.num_heads * op.head_dim;
    op.stride = query_size + 2 * key_size;
    const bw_memory<float> qkv = buffer((int32_t)op.stride), k = from(qkv, query_size), v = from(qkv, query_size + key_size);
    op.q = qkv, op.k = {k.at, k.bytes}, op.v = {v.at, v.bytes};
    if (random.one_in(2)) {
      op.q_norm = c.memory<const float>(4 * (op.norm_all_heads ? query_size : op.head_dim), FLOATS);
      op.k_norm = c.memory<const float>(4 * (op.norm_all_heads ? key_size : op.head_dim), FLOATS);
    }
    if (op.rotary_dim) {
      op.cos = c.memory<const float>(2 * (int64_t)context * op.rotary_dim, FLOATS);
      op.sin = c.memory<const float>(2 * (int64_t)context * op.rotary_dim, FLOATS);
    }
    op.key_cache = c.memory<void>((op.fp16_cache ? 2 : 4) * context * key_size, NOTHING);
    op.value_cache = c.memory<void>((op.fp16_cache ? 2 : 4) * context * key_size, NOTHING);
    op.partial = c.memory<float>(4 * op.max_splits * BW_SPLIT_KV_ROWS * (int64_t)op.num_heads * (op.head_dim + 2), NOTHING);
    op.out = buffer((int32_t)query_size);
    c.may_change({&op.num_heads, &op.num_kv_heads, &op.head_dim, &op.rotary_dim, &op.context_length, &op.fp16_cache, &op.window, &op.norm_all_heads, &op.max_splits});
    return &op;
  }

  void block(int32_t context) {
    bw_memory<float> normed = buffer(hidden_size);
    bw_attention &op = *attention(context);
    const int32_t query_size = op.num_heads * op.head_dim, key_size = op.num_kv_heads * op.head_dim, all = query_size + 2 * key_size;
    bw_rmsnorm *first = norm(normed, {});
    bw_matmul *qkv = random.one_in(2) ? linear({all}, hidden_size, op.q, all) : linear({query_size, key_size, key_size}, hidden_size, op.q, all);
    reads(first->quantized_inputs, *qkv, normed);
    const bool later = random.one_in(2);
    bw_memory<float> y = later ? buffer(hidden_size) : x;
    bw_matmul *output = query_size % 32 ? nullptr : linear({hidden_size}, query_size, y, hidden_size);
    if (output) output->add = !later, reads(op.quantized_inputs, *output, op.out);
    add(BW_RMSNORM, first), add(BW_MATMUL, qkv), add(BW_QK_NORM_ROPE, &op), add(BW_ATTENTION, &op), add(BW_SPLIT_KV_REDUCE, &op);
    if (output) add(BW_MATMUL, output);
    bw_rmsnorm *second = norm(normed, later ? y : bw_memory<float>{});
    bw_memory<float> gates = buffer(2 * intermediate_size), up = from(gates, intermediate_size);
    bw_matmul *both = linear({intermediate_size, intermediate_size}, hidden_size, gates, 2 * intermediate_size);
    reads(second->quantized_inputs, *both, normed);
    bw_gated_activation &gate = *c.made<bw_gated_activation>();
    gate.activation = random.below(3), gate.intermediate_size = intermediate_size, gate.gate = {gates.at, gates.bytes}, gate.up = {up.at, up.bytes};
    gate.stride = 2 * intermediate_size, gate.out = buffer(intermediate_size);
    bw_matmul *down = linear({hidden_size}, intermediate_size, x, hidden_size);
    down->add = 1;
    reads(gate.quantized_inputs, *down, gate.out);
    add(BW_RMSNORM, second), add(BW_MATMUL, both), add(BW_GATED_ACTIVATION, &gate), add(BW_MATMUL, down);
    c.may_change({&gate.activation, &gate.intermediate_size});
  }

  void ends(bool first) {
    if (first) {
      bw_embedding &op = *c.made<bw_embedding>();
      op.hidden_size = hidden_size, op.vocab_size = vocab_size, op.scale = 2, op.x = x, op.weights = random.of({0, 2});
      if (random.one_in(2)) op.matrix = matrix(c, vocab_size, hidden_size, true);
      else op.table = c.memory<const void>((op.weights ? 2 : 4) * (int64_t)vocab_size * hidden_size, op.weights ? HALVES : FLOATS);
      c.may_change({&op.hidden_size, &op.vocab_size, &op.weights});
      return add(BW_EMBEDDING, &op);
    }
    bw_memory<float> out = buffer(hidden_size);
    bw_rmsnorm *last = norm(out, {});
    bw_matmul *head = linear({vocab_size}, hidden_size, {}, vocab_size);
    reads(last->quantized_inputs, *head, out, true);
    add(BW_RMSNORM, last, true), add(BW_MATMUL, head, true);
    bw_logits &logits = *c.made<bw_logits>();
    logits.vocab_size = vocab_size, logits.scale = 0.5f, logits.softcap = random.one_in(2) ? 0 : 30;
    c.may_change({&logits.vocab_size});
    add(BW_LOGITS, &logits, true);
  }
};

int32_t never() { return 0; }
int32_t at_once() { return 1; }

void program() {
  Case c(seed << 32 ^ number);
  Random &random = c.random;
  const int32_t context = 16 * random.from(1, random.one_in(6) ? 40 : 4), intermediate_size = 32 * random.from(1, 4);
  Decoder d{c, random, random.from(1, 20), 32 * random.from(1, 4), intermediate_size, random.from(1, 120), {}, {}, {}, {}};
  d.x = d.buffer(d.hidden_size);
  d.ends(true);
  for (int32_t i = random.from(1, 2); i > 0; i--) d.block(context);
  d.ends(false);
  std::vector<bw_activations *> forms = d.forms;
  forms.insert(forms.end(), d.logit_forms.begin(), d.logit_forms.end());
  bw_program p = {};
  p.ops = {d.ops.data(), (int64_t)(d.ops.size() * sizeof(bw_op))}, p.count = (int32_t)d.ops.size();
  p.activations = {forms.data(), (int64_t)(forms.size() * sizeof forms[0])}, p.activation_count = (int32_t)forms.size();
  p.logit_activations = (int32_t)d.logit_forms.size(), p.threads = random.from(1, 3);
  p.scratch_size = bw_scratch_size(p.ops, p.count);
  if (p.scratch_size < 0) fail("sound attention arguments are refused");
  p.scratch = c.memory<float>(4 * p.scratch_size * p.threads, NOTHING);
  if (random.one_in(4)) p.op_nanoseconds = c.memory<int64_t>(8 * BW_KINDS, NOTHING);
  c.may_change({&p.count, &p.activation_count, &p.logit_activations});
  c.change();
  for (int32_t position = 0; position < context;) {
    bw_step step = {};
    const int32_t left = context - position, some = random.one_in(3) ? 1 : d.rows;
    step.rows = some < left ? some : left, step.position = position, step.wanted = random.below(3);
    bw_memory<int32_t> tokens = c.memory<int32_t>(4 * (int64_t)step.rows, NOTHING);
    for (int32_t i = 0; tokens.at && i < tokens.bytes / 4; i++) tokens.at[i] = random.below(d.vocab_size);
    step.tokens = {tokens.at, tokens.bytes};
    const int64_t wanted = step.wanted == BW_ALL_LOGITS ? step.rows : step.wanted;
    if (wanted) step.logits = c.memory<float>(4 * wanted * d.vocab_size, NOTHING);
    if (random.one_in(3)) step.should_stop = random.one_in(3) ? at_once : never;
    position += step.rows;
    if (wrong && random.one_in(6)) {
      int32_t *fields[] = {&step.rows, &step.position, &step.wanted, &p.threads};
      *fields[random.below(4)] = random.of({-1, 0, 257, context, context - 1, INT32_MAX, INT32_MIN});
      if (p.threads > 3 && p.threads <= 256) p.threads = 257;
    }
    if (wrong && random.one_in(6) && tokens.bytes >= 4) tokens.at[0] = random.of({-1, d.vocab_size, INT32_MAX, INT32_MIN});
    const int32_t error = bw_run(&p, &step);
    if (error < 0 && !wrong) fail("a sound step is refused");
    if (error == BW_DONE && !wrong) {
      for (int64_t i = 0; i < wanted * d.vocab_size; i++) {
        if (!std::isfinite(step.logits.at[i])) fail("a logit is not finite");
      }
    }
  }
}

}  // namespace

// Called by sanitizers before they end the process.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*)());

int main(int count, char **words) {
  if (count < 3) return std::fprintf(stderr, "fuzz SEED CASES [FIRST]\n"), 2;
  seed = std::strtoull(words[1], nullptr, 10);
  const uint64_t first = count > 3 ? std::strtoull(words[3], nullptr, 10) : 0, cases = std::strtoull(words[2], nullptr, 10);
  int32_t sound = 0;
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(tell_how_to_repeat);
  for (number = first; number < first + cases; number++) {
    number % 3 ? product() : program();
    sound += !wrong;
  }
  bw_pool_close();
  std::printf("%llu cases, %d of them sound\n", (unsigned long long)cases, sound);
  return 0;
}
