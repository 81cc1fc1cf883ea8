// The first path's variants, one for each kind of processor, and what they share: tables and what is learned of keys.
#include <cstddef>

#include "decoder.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rd {
namespace {

constexpr size_t steps_max = 64;
constexpr size_t ahead_max = 5;
// The objects of a path that have been met in a record are a word's bits.
constexpr size_t nodes_max = 64;

// Bytes of numbers and of true, false, null.
struct ScalarTable {
  bool is[256] = {};
  constexpr ScalarTable() {
    for (int c = '0'; c <= '9'; c++) is[c] = true;
    for (int c = 'a'; c <= 'z'; c++) is[c] = true;
    is[int('+')] = is[int('-')] = is[int('.')] = is[int('E')] = true;
  }
};
constexpr ScalarTable scalar_byte;

// The numbers of the bytes of a block.
struct Places {
  alignas(64) uint8_t bytes[64] = {};
  constexpr Places() {
    for (int i = 0; i < 64; i++) bytes[i] = uint8_t(i);
  }
};
[[maybe_unused]] constexpr Places places;

// From byte n on: a shuffle that moves the first n of 16 bytes to the end, with zeros before them.
struct Slide {
  uint8_t bytes[32] = {};
  constexpr Slide() {
    for (int i = 0; i < 32; i++) bytes[i] = i < 16 ? 0x80 : uint8_t(i - 16);
  }
};
[[maybe_unused]] constexpr Slide slide;

Op op_of(const rd_decoder &d, const Node::Child &child) {
  if (child.node != no_index || d.fields[child.field].next_same != no_index) return Op::other;
  switch (d.fields[child.field].spec.type) {
    case RD_FIELD_INT: return Op::integer;
    case RD_FIELD_TIME_NUMBER: return Op::time_number;
    case RD_FIELD_FLOAT: return Op::decimal;
    case RD_FIELD_STRING: return Op::string;
    default: return Op::other;
  }
}

uint32_t low_bits(size_t count) { return uint32_t((uint64_t(1) << count) - 1); }

void forget_pattern(Step &step) {
  // No UTF-8 has this byte.
  step.pattern[0] = 0xff;
  step.pattern_mask = 1;
  step.pattern_length = 0;
}

}  // namespace

void forget_brace(Node &node, size_t index) {
  if (index < node.steps.size() && node.steps[index].pattern[0] == '{') forget_pattern(node.steps[index]);
}

void learn_pattern(Node &node, size_t index, const uint8_t *begin, const uint8_t *value) {
  Step &step = node.steps[index];
  // A torn record teaches nothing.
  if ((*begin == '{' && index > 0) || *value < 0x20) return forget_pattern(step);
  bool is_string = *value == '"';
  size_t length = size_t(value - begin) + is_string;
  if (length > sizeof step.pattern) return forget_pattern(step);
  memcpy(step.pattern, begin, length);
  step.pattern_mask = low_bits(length);
  step.pattern_length = uint32_t(length);
  if (step.needed == Op::skip) {
    step.op = is_string ? Op::skip_string : Op::skip;
  } else {
    step.op = is_string == (step.needed == Op::string) ? step.needed : Op::other;
  }
}

bool learn(rd_decoder &d, Node &node, size_t index, const uint8_t *quote, size_t length, uint32_t child) {
  if (length > 32) return false;
  if (node.steps.size() >= steps_max) {
    // Either the producer writes its keys in any order, or a new version of it came: now and then, start over.
    if (++node.misses < 1000) return false;
    node.misses = 0;
    node.steps.clear();
  }
  // A record that started over goes on with its old index.
  if (index > node.steps.size()) index = node.steps.size();
  Step step{};
  memcpy(step.key, quote, length);
  step.mask = low_bits(length);
  forget_pattern(step);
  step.length = uint32_t(length);
  step.child = child;
  if (child != no_index) {
    step.needed = op_of(d, node.children[child]);
    step.field = node.children[child].field;
  }
  if (step.needed != Op::skip && step.field != no_index) {
    const Field &field = d.fields[step.field];
    step.scale = field.spec.scale;
    step.int_scale = step.needed == Op::time_number ? int64_t(field.spec.scale) : 1;
    step.is_nullable = field.spec.absence == RD_ABSENT_NULL;
    step.wants_hash = field.spec.wants_hash != 0;
  }
  node.steps.insert(node.steps.begin() + ptrdiff_t(index), step);
  // Only the first step may expect a `{`.
  forget_brace(node, index + 1);
  return true;
}

// RD_SIMD: 0 plain words, 1 SSE2, 2 AVX2, 3 AVX-512 with VBMI2.
#if defined(__x86_64__)
#define RD_SIMD 1
#else
#define RD_SIMD 0
#endif
namespace portable {
#include "scan_kernel.h"
}
#undef RD_SIMD

#if defined(__x86_64__)
#define RD_SIMD 2
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,popcnt"))), apply_to = function)
namespace avx2 {
#include "scan_kernel.h"
}
#pragma clang attribute pop
#undef RD_SIMD

#define RD_SIMD 3
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx2,bmi,bmi2,popcnt"))), \
    apply_to = function)
namespace avx512 {
#include "scan_kernel.h"
}
#pragma clang attribute pop
#undef RD_SIMD
#endif

namespace {

thread_local int forced_variant = RD_SCAN_BEST;

bool can_run(int variant) {
  switch (variant) {
    case RD_SCAN_BEST:
    case RD_SCAN_PORTABLE:
      return true;
#if defined(__x86_64__)
    case RD_SCAN_AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
             __builtin_cpu_supports("popcnt");
    case RD_SCAN_AVX512:
      return can_run(RD_SCAN_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
             __builtin_cpu_supports("avx512vbmi2");
#endif
    default:
      return false;
  }
}

}  // namespace

const ScanKernel &scan_kernel() {
  static const int best = can_run(RD_SCAN_AVX512) ? RD_SCAN_AVX512
                          : can_run(RD_SCAN_AVX2) ? RD_SCAN_AVX2
                                                  : RD_SCAN_PORTABLE;
  switch (forced_variant == RD_SCAN_BEST ? best : forced_variant) {
#if defined(__x86_64__)
    case RD_SCAN_AVX2: return avx2::kernel;
    case RD_SCAN_AVX512: return avx512::kernel;
#endif
    default: return portable::kernel;
  }
}

}  // namespace rd

extern "C" int rd_use_scan_variant(int variant) {
  if (!rd::can_run(variant)) return 0;
  rd::forced_variant = variant;
  return 1;
}
