// Vectors of floats in the size of the machine's registers, with the vector types of GCC and Clang.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace bw {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));

static inline vf load(const float *from) {
  vf value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

static inline void store(float *to, vf value) { std::memcpy(to, &value, sizeof value); }

// Subtracting 0 changes no value, so the compiler removes it; adding 0 would turn -0 into 0.
static inline vf splat(float value) { return value - vf{}; }

static inline vf larger(vf a, vf b) { return a > b ? a : b; }

static inline vf smaller(vf a, vf b) { return a < b ? a : b; }

static inline float sum(vf value) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += value[i];
  return total;
}

static inline float largest(vf value) {
  float most = value[0];
  for (int i = 1; i < LANES; i++) most = value[i] > most ? value[i] : most;
  return most;
}

// e^x to about one unit in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes, expf).
static inline vf exponential(vf x) {
  x = smaller(larger(x, splat(-87.0f)), splat(88.0f));
  const vf round = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const vf n = (x * splat(1.44269504088896341f) + round) - round;
  const vf r = (x - n * splat(0.693359375f)) + n * splat(2.12194440e-4f);
  vf p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * r * r + r + splat(1.0f);
  const vi power = (__builtin_convertvector(n, vi) + 127) << 23;
  vf scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

static inline vf sigmoid(vf x) { return splat(1.0f) / (splat(1.0f) + exponential(-x)); }

// Near 0 the difference 1 - e^-2x cancels, so a series is used for small x.
static inline vf hyperbolic_tangent(vf x) {
  const vf square = x * x;
  vf p = splat(-17.0f / 315.0f);
  p = p * square + splat(2.0f / 15.0f);
  p = p * square + splat(-1.0f / 3.0f);
  const vf small = x + x * square * p;
  const vf exact = splat(2.0f) * sigmoid(x + x) - splat(1.0f);
  return square < splat(0.01f) ? small : exact;
}

// 16-bit floats, if the machine has instructions to convert them.
#if defined(__F16C__) || defined(__aarch64__)
constexpr bool HALVES = true;
#else
constexpr bool HALVES = false;
#endif

// Load LANES halves as floats.
static inline vf load_halves(const uint16_t *from) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__F16C__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#elif defined(__aarch64__)
  return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
  (void)from;
  return vf{};
#endif
}

static inline float from_half(uint16_t value) {
#if defined(__F16C__)
  return _cvtsh_ss(value);
#elif defined(__aarch64__)
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(value))), 0);
#else
  const uint32_t sign = (uint32_t)(value & 0x8000) << 16, exponent = (value >> 10) & 31, fraction = value & 1023;
  float magnitude;
  if (exponent == 0) {
    magnitude = (float)fraction * 5.9604644775390625e-8f;  // 2^-24
  } else {
    const uint32_t bits = exponent == 31 ? 0x7f800000u | fraction << 13 : (exponent + 112) << 23 | fraction << 13;
    std::memcpy(&magnitude, &bits, 4);
  }
  return sign ? -magnitude : magnitude;
#endif
}

// Return the nearest half, at most the largest finite one. Only available if HALVES.
static inline uint16_t to_half(float value) {
  value = value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value;
#if defined(__F16C__)
  return (uint16_t)_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__aarch64__)
  return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(value))), 0);
#else
  return 0;
#endif
}

static inline float from_bfloat(uint16_t value) {
  const uint32_t bits = (uint32_t)value << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

}  // namespace bw
