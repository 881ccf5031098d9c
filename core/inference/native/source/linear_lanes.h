// Sixteen outputs at once: the few vector operations that the linear kernels are written in, once per instruction set.
//
//   Bytes   64 bytes: 4 inputs of each of 16 outputs, unsigned
//   Ints    16 int32, Floats 16 float32
//   Part    what `dot` may gather in narrower numbers before `flush` puts it into the Ints; at most 8 steps of weights
//           up to 4 bits
//   SHIFT   what `dot<8>` takes off every weight because its products need signed ones
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

// What has to be added to a zero point because `dot` has taken it off already.
template <int BITS>
constexpr int taken_off() {
  return BITS == 8 ? SHIFT : 0;
}

}  // namespace bw::linear
