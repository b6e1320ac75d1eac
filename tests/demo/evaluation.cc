// SPDX-License-Identifier: Apache-2.0
//
// The contract in float64: tables over all patterns, then element by element.
#include "tests/demo/evaluation.h"

#include <cstdio>
#include <cstdlib>

#include "tests/demo/formula.h"

namespace swiglu::demo {
namespace {

constexpr int kNumPatterns = 1 << 16;

// Counts a value as wrong, and keeps the words for the first one.
void Reject(Verdict& verdict, const char* name, uint16_t e, uint16_t got, uint16_t wanted) {
  if (verdict.num_wrong++ != 0) return;
  char text[96];
  std::snprintf(text, sizeof(text), "%s of element %lld (e = 0x%04x) is 0x%04x, not 0x%04x", name,
                static_cast<long long>(verdict.num_values), e, got, wanted);
  verdict.first_wrong = text;
}

}  // namespace

Contract::Contract(NarrowFloat format)
    : format_(format), wide_(kNumPatterns), sigmoid_(kNumPatterns), silu_(kNumPatterns) {
  for (int bits = 0; bits < kNumPatterns; ++bits) {
    wide_[bits] = Widen(format, static_cast<uint16_t>(bits));
    sigmoid_[bits] = Sigmoid(wide_[bits]);
    silu_[bits] = Narrow(format, sigmoid_[bits] * wide_[bits]);
  }
}

uint16_t Contract::GateGradient(uint16_t dw, uint16_t e, uint16_t g) const {
  const double dg = wide_[Product(dw, g)];
  return Narrow(format_, demo::GateGradient(dg, wide_[e], sigmoid_[e]));
}

void Contract::CheckForward(uint16_t e, uint16_t g, uint16_t h, Verdict& verdict) const {
  const uint16_t wanted = Product(silu_[e], g);
  if (!Same(h, wanted)) {
    ++verdict.num_differing;
    bool right = false;
    for (const uint16_t f : NeighboursOf(silu_[e])) right = right || Same(h, Product(f, g));
    if (!right) Reject(verdict, "h", e, h, wanted);
  }
  ++verdict.num_values;
}

void Contract::CheckBackward(uint16_t dw, uint16_t e, uint16_t g, uint16_t h, uint16_t df,
                             uint16_t de, Verdict& verdict) const {
  const uint16_t wanted_h = Product(silu_[e], g);
  const uint16_t wanted_df = Product(dw, silu_[e]);
  const uint16_t wanted_de = GateGradient(dw, e, g);
  if (!Same(h, wanted_h) || !Same(df, wanted_df)) {
    ++verdict.num_differing;
    bool right = false;
    for (const uint16_t f : NeighboursOf(silu_[e])) {
      right = right || (Same(h, Product(f, g)) && Same(df, Product(dw, f)));
    }
    if (!right && !Same(h, wanted_h)) Reject(verdict, "h", e, h, wanted_h);
    if (!right && Same(h, wanted_h)) Reject(verdict, "df", e, df, wanted_df);
  }
  if (!Same(de, wanted_de)) {
    ++verdict.num_differing;
    if (!WithinOneUlp(de, wanted_de)) Reject(verdict, "de", e, de, wanted_de);
  }
  ++verdict.num_values;
}

// Products of two 11-bit mantissas are exact in double, so that this rounds once.
uint16_t Contract::Product(uint16_t a, uint16_t b) const {
  return Narrow(format_, wide_[a] * wide_[b]);
}

bool Contract::Same(uint16_t a, uint16_t b) const {
  return a == b || (IsNan(format_, a) && IsNan(format_, b));
}

bool Contract::WithinOneUlp(uint16_t a, uint16_t b) const {
  return !IsNan(format_, a) && !IsNan(format_, b) && std::abs(Place(a) - Place(b)) <= 1;
}

// A neighbour that is zero keeps the sign of `f`.
std::vector<uint16_t> Contract::NeighboursOf(uint16_t f) const {
  std::vector<uint16_t> neighbours;
  for (const int place : {Place(f) - 1, Place(f) + 1}) {
    const uint16_t bits = place == 0 ? static_cast<uint16_t>(f & 0x8000) : AtPlace(place);
    if (!IsNan(format_, f) && !IsNan(format_, bits)) neighbours.push_back(bits);
  }
  return neighbours;
}

}  // namespace swiglu::demo
