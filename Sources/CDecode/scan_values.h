// What the scanner's members are made of: comparisons, ends of scalars, numbers. Part of scan_kernel.h, compiled for each
// kind of processor.

namespace {

inline const uint8_t *skip_blanks(const uint8_t *p) {
  while (*p == ' ') p++;
  return p;
}

inline bool ends_scalar(uint8_t c) { return __builtin_expect(c == ',', 1) || c == '}' || c == ' '; }

// Behind the scalar at `p`.
inline const uint8_t *scalar_end(const uint8_t *p) {
#if RD_SIMD >= 2
  // A byte belongs to the class when the entries of its two halves share a bit: 1 for + - ., 2 for digits, 4 for E and
  // a to o, 8 for p to z.
  const __m128i low = _mm_setr_epi8(
      2 | 8, 2 | 4 | 8, 2 | 4 | 8, 2 | 4 | 8, 2 | 4 | 8, 2 | 4 | 8 | 16, 2 | 4 | 8, 2 | 4 | 8, 2 | 4 | 8, 2 | 4 | 8,
      4 | 8, 1 | 4, 4, 1 | 4, 1 | 4, 4);
  const __m128i high = _mm_setr_epi8(0, 0, 1, 2, 16, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0);
  for (;; p += 16) {
    __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    __m128i half = _mm_and_si128(_mm_srli_epi16(v, 4), _mm_set1_epi8(0x0f));
    // A byte with its high bit set gets 0 from the first table.
    __m128i both = _mm_and_si128(_mm_shuffle_epi8(low, v), _mm_shuffle_epi8(high, half));
    unsigned other = unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(both, _mm_setzero_si128())));
    if (other) return p + __builtin_ctz(other);
  }
#else
  while (scalar_byte.is[*p]) p++;
  return p;
#endif
}

// Whether the bytes at `p` are those of `bytes` that `mask` has a bit for. Reads 32 bytes.
inline bool matches(const uint8_t *bytes, uint32_t mask, uint32_t length, const uint8_t *p) {
#if RD_SIMD >= 2
  (void)length;
  __m256i equal = _mm256_cmpeq_epi8(
      _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)),
      _mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes)));
  return (mask & ~uint32_t(_mm256_movemask_epi8(equal))) == 0;
#elif RD_SIMD == 1
  __m128i low = _mm_cmpeq_epi8(
      _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)), _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes)));
  uint32_t other = mask & 0xffff & ~uint32_t(_mm_movemask_epi8(low));
  if (length > 16) {
    __m128i high = _mm_cmpeq_epi8(
        _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + 16)),
        _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes + 16)));
    other |= mask >> 16 & ~uint32_t(_mm_movemask_epi8(high));
  }
  return other == 0;
#else
  (void)mask;
  return memcmp(bytes, p, length > 0 ? length : 1) == 0;
#endif
}
inline bool matches_key(const Step &step, const uint8_t *p) { return matches(step.key, step.mask, step.length, p); }
inline bool matches_pattern(const Step &step, const uint8_t *p) {
  return matches(step.pattern, step.pattern_mask, step.pattern_length, p);
}

struct Digits {
  uint64_t value;
  unsigned count;  // 0: none; 16: perhaps more
};

#if RD_SIMD >= 2
// The value of 16 digits, each a byte of 0 to 9 (W. Mula, "SIMD-ized faster parse of unsigned integers").
inline uint64_t join_digits(__m128i digits) {
  __m128i pairs = _mm_maddubs_epi16(
      digits, _mm_setr_epi8(10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1));
  __m128i fours = _mm_madd_epi16(pairs, _mm_setr_epi16(100, 1, 100, 1, 100, 1, 100, 1));
  __m128i eights = _mm_madd_epi16(
      _mm_packus_epi32(fours, fours), _mm_setr_epi16(10000, 1, 10000, 1, 10000, 1, 10000, 1));
  uint64_t both = uint64_t(_mm_cvtsi128_si64(eights));
  return (both & UINT32_MAX) * 100000000 + (both >> 32);
}
// A bit for each of 16 bytes that is no digit, and bits behind those; `digits` gets the digits' values.
inline unsigned other_than_digits(const uint8_t *p, __m128i &digits) {
  digits = _mm_sub_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)), _mm_set1_epi8('0'));
  __m128i is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digits, _mm_set1_epi8(9)), digits);
  return ~unsigned(_mm_movemask_epi8(is_digit));
}
inline Digits read_digits(const uint8_t *p) {
  __m128i digits;
  unsigned count = unsigned(__builtin_ctz(other_than_digits(p, digits)));
  __m128i shift = _mm_loadu_si128(reinterpret_cast<const __m128i *>(slide.bytes + count));
  return {join_digits(_mm_shuffle_epi8(digits, shift)), count};
}
#else
inline Digits read_digits(const uint8_t *p) {
  uint64_t word = rd_load64(p);
  unsigned count = leading_digits(word);
  if (count == 0) return {0, 0};
  uint64_t value = some_digits(word, count);
  if (count < 8) return {value, count};
  word = rd_load64(p + 8);
  unsigned more = leading_digits(word);
  if (more == 0) return {value, 8};
  return {value * small_powers[more] + some_digits(word, more), 8 + more};
}
#endif

// Digits with or without a point among them, as `value` and the digits behind the point. `length` is 0 when there is no
// such number, or one that is longer than 15 bytes.
struct Point {
  uint64_t value;
  unsigned length, fraction;
};

#if RD_SIMD >= 2
inline Point read_point(const uint8_t *p) {
  __m128i digits;
  unsigned other = other_than_digits(p, digits);
  unsigned whole = unsigned(__builtin_ctz(other));
  if (p[whole] != '.') {
    __m128i shift = _mm_loadu_si128(reinterpret_cast<const __m128i *>(slide.bytes + whole));
    return {join_digits(_mm_shuffle_epi8(digits, shift)), whole > 15 ? 0 : whole, 0};
  }
  other &= other - 1;
  unsigned length = unsigned(__builtin_ctz(other));
  if (__builtin_expect(length > 15 || whole == 0, 0)) return {0, 0, 0};
  // As if the point were not there: what stands from it on is taken from one byte further.
  __m128i shift = _mm_loadu_si128(reinterpret_cast<const __m128i *>(slide.bytes + length - 1));
  shift = _mm_sub_epi8(shift, _mm_cmpgt_epi8(shift, _mm_set1_epi8(char(whole - 1))));
  unsigned fraction = length - whole - 1;
  return {join_digits(_mm_shuffle_epi8(digits, shift)), fraction == 0 ? 0 : length, fraction};
}
#else
inline Point read_point(const uint8_t *p) {
  uint64_t word = rd_load64(p);
  unsigned whole = leading_digits(word);
  if (whole == 0) return {0, 0, 0};
  uint64_t value = some_digits(word, whole);
  if (p[whole] != '.') return {value, is_digit(p[whole]) ? 0 : whole, 0};
  word = rd_load64(p + whole + 1);
  unsigned fraction = leading_digits(word);
  if (fraction == 0 || whole + fraction > 14 || is_digit(p[whole + 1 + fraction])) return {0, 0, 0};
  return {value * small_powers[fraction] + some_digits(word, fraction), whole + 1 + fraction, fraction};
}
#endif

}  // namespace
