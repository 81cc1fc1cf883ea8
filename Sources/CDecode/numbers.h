// JSON numbers and RFC 3339 times as exact decimals. Shared by both paths, so that they cannot disagree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rd {

enum class Parsed { ok, wrong_type, out_of_range };

// (-1)^negative * mantissa * 10^exponent; `truncated` when there were non-zero digits behind the 19th.
struct Decimal {
  uint64_t mantissa = 0;
  int64_t exponent = 0;
  int64_t lowest = 0;  // the power of ten of the last digit that is not zero
  bool negative = false;
  bool truncated = false;
};

// The JSON grammar of a number, over the whole token.
bool parse_decimal(const uint8_t *p, const uint8_t *end, Decimal &out);

// 5.0 and 1e3 are ints, 5.5 is not.
Parsed parse_int(const uint8_t *p, const uint8_t *end, int64_t &out);
// Correctly rounded; out_of_range when the nearest double is infinite.
Parsed parse_double(const uint8_t *p, const uint8_t *end, double &out);
// A number of units of 10^power nanoseconds, rounded to the nanosecond (half away from zero).
Parsed parse_time_number(const uint8_t *p, const uint8_t *end, int power, int64_t &out);
// RFC 3339 with 'T' or a blank; no offset means UTC; digits behind the ninth of a fraction are dropped.
Parsed parse_time_text(const uint8_t *p, const uint8_t *end, int64_t &out);

inline bool is_digit(uint8_t c) { return uint8_t(c - '0') < 10; }

// Whether eight bytes are all digits, and their value (little-endian machines).
inline bool is_eight_digits(uint64_t v) {
  return ((v & 0xF0F0F0F0F0F0F0F0ull) | (((v + 0x0606060606060606ull) & 0xF0F0F0F0F0F0F0F0ull) >> 4)) ==
         0x3333333333333333ull;
}
inline uint32_t eight_digits(uint64_t v) {
  v = (v & 0x0F0F0F0F0F0F0F0Full) * 2561 >> 8;
  v = (v & 0x00FF00FF00FF00FFull) * 6553601 >> 16;
  return uint32_t((v & 0x0000FFFF0000FFFFull) * 42949672960001ull >> 32);
}

// How many of eight bytes are digits before the first that is none (little-endian machines).
inline unsigned leading_digits(uint64_t v) {
  uint64_t t = v ^ 0x3030303030303030ull;
  // A byte beyond 9 gets its high bit; carries reach only what lies behind it.
  uint64_t other = ((t + 0x7676767676767676ull) | t) & 0x8080808080808080ull;
  return other ? unsigned(__builtin_ctzll(other)) >> 3 : 8;
}
// The value of the first `count` digits, 1 to 8.
inline uint32_t some_digits(uint64_t v, unsigned count) { return eight_digits(v << (64 - 8 * count)); }

inline constexpr uint64_t small_powers[9] = {1,      10,      100,      1000,     10000,
                                             100000, 1000000, 10000000, 100000000};
extern const double exact_powers[23];

}  // namespace rd
