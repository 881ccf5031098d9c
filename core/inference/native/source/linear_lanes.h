// Vector operations on sixteen outputs, implemented once for each instruction set.
//
//   Bytes   64 bytes: 4 inputs of each of 16 outputs, unsigned
//   Ints    16 int32, Floats 16 float32
//   Part    narrower partial sums of `dot`, which `flush` adds to the Ints; at most 8 steps of weights up to 4 bits
//   SHIFT   subtracted from every weight by `dot<8>` where its products need signed weights
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include "linear_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "linear_avx2.h"
#else
#include "linear_plain.h"
#endif

namespace bw::linear {

constexpr int LANES = 16;

inline int32_t four_bytes(const int8_t *from) {
  int32_t value;
  memcpy(&value, from, 4);
  return value;
}

// The part of a zero point that `dot` has subtracted already.
template <int BITS>
constexpr int taken_off() {
  return BITS == 8 ? SHIFT : 0;
}

}  // namespace bw::linear
