// The operations of linear_lanes.h with AVX-512 and its byte products (VNNI).
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace bw::linear {

constexpr int32_t INSTRUCTIONS = 1 | 2 | 4;
constexpr int SHIFT = 0;
constexpr int ROWS = 6;
constexpr int DENSE_TILES = 2;
constexpr int DENSE_ROWS = 6;

using Bytes = __m512i;
using Ints = __m512i;
using Floats = __m512;
struct Part {};

inline Bytes load_bytes(const void *from) { return _mm512_loadu_si512(from); }
// Keep a value in a register: compilers would load it from memory again for each use, which limits the speed here.
template <class V>
inline void keep(V &v) {
  asm("" : "+v"(v));
}
inline void store_bytes(void *to, Bytes v) { _mm512_storeu_si512(to, v); }

template <int SHIFTED, int MASK>
inline Bytes bits_of(Bytes v) {
  const Bytes mask = _mm512_set1_epi8(static_cast<char>(MASK));
  if (SHIFTED == 0) return _mm512_and_si512(v, mask);
  if (SHIFTED > 0) return _mm512_and_si512(_mm512_srli_epi16(v, SHIFTED > 0 ? SHIFTED : 0), mask);
  return _mm512_and_si512(_mm512_slli_epi16(v, SHIFTED < 0 ? -SHIFTED : 0), mask);
}
inline Bytes either(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }

inline Ints set_ints(int32_t v) { return _mm512_set1_epi32(v); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }

template <int BITS>
inline void dot(Ints &sum, Part &, Bytes w, int32_t x) {
  sum = _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x));
}
inline void flush(Ints &, Part &) {}

inline Floats set_floats(float v) { return _mm512_set1_ps(v); }
inline Floats load_floats(const float *from) { return _mm512_loadu_ps(from); }
inline void store_floats(float *to, Floats v) { _mm512_storeu_ps(to, v); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }

inline Floats load_halves(const uint16_t *from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
}
inline Floats load_brains(const uint16_t *from) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
inline Floats load_small(const uint8_t *from) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from))));
}
inline Floats load_signed(const int8_t *from) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from))));
}

inline void store_some(float *to, Floats v, int count) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), v);
}
inline Floats load_some(const float *from, int count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
}

}  // namespace bw::linear
