// The operations of linear_lanes.h with AVX2, FMA and F16C, and with the byte products of AVX-VNNI if available: two
// registers for sixteen outputs.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace bw::linear {

#if defined(__AVXVNNI__)
#define BW_BYTE_PRODUCTS _mm256_dpbusd_avx_epi32
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define BW_BYTE_PRODUCTS _mm256_dpbusd_epi32
#endif

#if defined(BW_BYTE_PRODUCTS)
constexpr int32_t INSTRUCTIONS = 1 | 4;
constexpr int SHIFT = 0;
#else
constexpr int32_t INSTRUCTIONS = 1;
// maddubs adds two products of unsigned and signed bytes in 16 bits and would saturate with weights up to 255. Signed
// weights are multiplied as |w| and x with the sign of w: 2 * 128 * 127 fits.
constexpr int SHIFT = 128;
#endif
constexpr int ROWS = 4;
constexpr int DENSE_TILES = 1;
constexpr int DENSE_ROWS = 6;

struct Bytes {
  __m256i a, b;
};
struct Ints {
  __m256i a, b;
};
struct Floats {
  __m256 a, b;
};

inline Bytes load_bytes(const void *from) {
  const __m256i *p = static_cast<const __m256i *>(from);
  return {_mm256_loadu_si256(p), _mm256_loadu_si256(p + 1)};
}
template <class V>
inline void keep(V &v) {
  asm("" : "+x"(v.a), "+x"(v.b));
}
inline void store_bytes(void *to, Bytes v) {
  __m256i *p = static_cast<__m256i *>(to);
  _mm256_storeu_si256(p, v.a);
  _mm256_storeu_si256(p + 1, v.b);
}

template <int SHIFTED, int MASK>
inline __m256i bits_of(__m256i v) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(MASK));
  if (SHIFTED == 0) return _mm256_and_si256(v, mask);
  if (SHIFTED > 0) return _mm256_and_si256(_mm256_srli_epi16(v, SHIFTED > 0 ? SHIFTED : 0), mask);
  return _mm256_and_si256(_mm256_slli_epi16(v, SHIFTED < 0 ? -SHIFTED : 0), mask);
}
template <int SHIFTED, int MASK>
inline Bytes bits_of(Bytes v) {
  return {bits_of<SHIFTED, MASK>(v.a), bits_of<SHIFTED, MASK>(v.b)};
}
inline Bytes either(Bytes a, Bytes b) { return {_mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b)}; }

inline Ints set_ints(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
inline Ints add(Ints a, Ints b) { return {_mm256_add_epi32(a.a, b.a), _mm256_add_epi32(a.b, b.b)}; }
inline Floats to_floats(Ints v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }

#if defined(BW_BYTE_PRODUCTS)
struct Part {};
template <int BITS>
inline void dot(Ints &sum, Part &, Bytes w, int32_t x) {
  const __m256i v = _mm256_set1_epi32(x);
  sum.a = BW_BYTE_PRODUCTS(sum.a, w.a, v);
  sum.b = BW_BYTE_PRODUCTS(sum.b, w.b, v);
}
inline void flush(Ints &, Part &) {}
#else
struct Part {
  __m256i a = _mm256_setzero_si256(), b = _mm256_setzero_si256();
};

inline __m256i widened(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
inline __m256i signed_products(__m256i w, __m256i x) {
  const __m256i v = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(SHIFT)));
  return _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(x, v));
}

template <int BITS>
inline void dot(Ints &sum, Part &part, Bytes w, int32_t x) {
  const __m256i v = _mm256_set1_epi32(x);
  if (BITS == 8) {
    sum.a = _mm256_add_epi32(sum.a, widened(signed_products(w.a, v)));
    sum.b = _mm256_add_epi32(sum.b, widened(signed_products(w.b, v)));
  } else if (BITS > 4) {  // 2 * 63 * 127 fits in 16 bits, but not several times
    sum.a = _mm256_add_epi32(sum.a, widened(_mm256_maddubs_epi16(w.a, v)));
    sum.b = _mm256_add_epi32(sum.b, widened(_mm256_maddubs_epi16(w.b, v)));
  } else {  // 8 steps of 2 * 15 * 127 fit in 16 bits
    part.a = _mm256_add_epi16(part.a, _mm256_maddubs_epi16(w.a, v));
    part.b = _mm256_add_epi16(part.b, _mm256_maddubs_epi16(w.b, v));
  }
}
inline void flush(Ints &sum, Part &part) {
  sum.a = _mm256_add_epi32(sum.a, widened(part.a));
  sum.b = _mm256_add_epi32(sum.b, widened(part.b));
  part = Part();
}
#endif

inline Floats set_floats(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline Floats load_floats(const float *from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store_floats(float *to, Floats v) {
  _mm256_storeu_ps(to, v.a);
  _mm256_storeu_ps(to + 8, v.b);
}
inline Floats multiply(Floats a, Floats b) { return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
inline Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)}; }
inline Floats fused(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
}

inline Floats load_halves(const uint16_t *from) {
  const __m128i *p = reinterpret_cast<const __m128i *>(from);
  return {_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p + 1))};
}
inline Floats load_brains(const uint16_t *from) {
  const __m128i *p = reinterpret_cast<const __m128i *>(from);
  const __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(p)), b = _mm256_cvtepu16_epi32(_mm_loadu_si128(p + 1));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
inline Floats load_small(const uint8_t *from) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
  return to_floats({_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))});
}
inline Floats load_signed(const int8_t *from) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
  return to_floats({_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))});
}

inline void store_some(float *to, Floats v, int count) {
  alignas(64) float all[16];
  store_floats(all, v);
  for (int i = 0; i < count; i++) to[i] = all[i];
}
inline Floats load_some(const float *from, int count) {
  alignas(64) float all[16] = {};
  for (int i = 0; i < count; i++) all[i] = from[i];
  return load_floats(all);
}

}  // namespace bw::linear
