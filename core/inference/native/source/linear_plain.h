// The operations of linear_lanes.h in portable C++ with the vector types of GCC and Clang.
#pragma once
#include <cstdint>
#include <cstring>

namespace bw::linear {

#if defined(__ARM_NEON)
constexpr int32_t INSTRUCTIONS = 8;
#else
constexpr int32_t INSTRUCTIONS = 0;
#endif
constexpr int SHIFT = 0;
constexpr int ROWS = 2;
constexpr int DENSE_TILES = 1;
constexpr int DENSE_ROWS = 2;

typedef uint8_t Bytes __attribute__((vector_size(64)));
typedef int16_t Pairs __attribute__((vector_size(64)));
typedef uint16_t UnsignedPairs __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));
struct Part {};

template <class T>
inline T load_as(const void *from) {
  T v;
  memcpy(&v, from, sizeof v);
  return v;
}

inline Bytes load_bytes(const void *from) { return load_as<Bytes>(from); }
template <class V>
inline void keep(V &) {}
inline void store_bytes(void *to, Bytes v) { memcpy(to, &v, sizeof v); }

template <int SHIFTED, int MASK>
inline Bytes bits_of(Bytes v) {
  const Bytes moved = SHIFTED >= 0 ? v >> (SHIFTED >= 0 ? SHIFTED : 0) : v << (SHIFTED < 0 ? -SHIFTED : 0);
  return moved & static_cast<uint8_t>(MASK);
}
inline Bytes either(Bytes a, Bytes b) { return a | b; }

inline Ints set_ints(int32_t v) { return v - Ints{}; }
inline Ints add(Ints a, Ints b) { return a + b; }
inline Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }

// A product of an unsigned and a signed byte fits in 16 bits, so even and odd inputs are multiplied as 16-bit numbers.
inline Ints both_halves(Pairs products) {
  const Ints v = reinterpret_cast<Ints>(products);
  return (v << 16 >> 16) + (v >> 16);
}
template <int BITS>
inline void dot(Ints &sum, Part &, Bytes w, int32_t x) {
  int8_t four[4];
  memcpy(four, &x, 4);
  const Ints even = set_ints(four[2] * 65536 | static_cast<uint16_t>(four[0]));
  const Ints odd = set_ints(four[3] * 65536 | static_cast<uint16_t>(four[1]));
  const UnsignedPairs pairs = reinterpret_cast<UnsignedPairs>(w);
  sum += both_halves(reinterpret_cast<Pairs>(pairs & 255) * reinterpret_cast<Pairs>(even));
  sum += both_halves(reinterpret_cast<Pairs>(pairs >> 8) * reinterpret_cast<Pairs>(odd));
}
inline void flush(Ints &, Part &) {}

inline Floats set_floats(float v) { return v - Floats{}; }
inline Floats load_floats(const float *from) { return load_as<Floats>(from); }
inline void store_floats(float *to, Floats v) { memcpy(to, &v, sizeof v); }
inline Floats multiply(Floats a, Floats b) { return a * b; }
inline Floats add(Floats a, Floats b) { return a + b; }
inline Floats fused(Floats a, Floats b, Floats c) { return a * b + c; }

// Convert float16 to float32 with integers and an exact multiplication that corrects the exponent, also of subnormals.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = static_cast<uint32_t>(half & 0x7fff) << 13;
  float value;
  memcpy(&value, &rest, 4);
  value *= 0x1p112f;
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((half & 0x7c00) == 0x7c00) bits |= 0x7f800000;
  bits |= sign;
  memcpy(&value, &bits, 4);
  return value;
}
inline Floats load_halves(const uint16_t *from) {
  float all[16];
  for (int i = 0; i < 16; i++) all[i] = half_to_float(from[i]);
  return load_floats(all);
}
inline Floats load_brains(const uint16_t *from) {
  uint32_t all[16];
  for (int i = 0; i < 16; i++) all[i] = static_cast<uint32_t>(from[i]) << 16;
  return load_as<Floats>(all);
}
inline Floats load_small(const uint8_t *from) {
  float all[16];
  for (int i = 0; i < 16; i++) all[i] = from[i];
  return load_floats(all);
}
inline Floats load_signed(const int8_t *from) {
  float all[16];
  for (int i = 0; i < 16; i++) all[i] = from[i];
  return load_floats(all);
}

inline void store_some(float *to, Floats v, int count) { memcpy(to, &v, sizeof(float) * count); }
inline Floats load_some(const float *from, int count) {
  float all[16] = {};
  memcpy(all, from, sizeof(float) * count);
  return load_floats(all);
}

}  // namespace bw::linear
