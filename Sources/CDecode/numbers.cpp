#include "numbers.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string>

namespace rd {

const double exact_powers[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

bool parse_decimal(const uint8_t *p, const uint8_t *end, Decimal &out) {
  Decimal d;
  if (p < end && *p == '-') {
    d.negative = true;
    p++;
  }
  if (p == end || !is_digit(*p)) return false;
  if (*p == '0' && p + 1 < end && is_digit(p[1])) return false;
  int digits = 0;            // significant ones taken into the mantissa
  int64_t pending_zeros = 0;  // zeros that matter only when another digit follows
  int64_t trailing_zeros = 0;
  int64_t scale = 0;          // digits behind the point so far
  bool in_fraction = false;
  for (; p < end; p++) {
    if (*p == '.') {
      if (in_fraction || p + 1 == end || !is_digit(p[1])) return false;
      in_fraction = true;
      continue;
    }
    if (!is_digit(*p)) break;
    if (in_fraction) scale++;
    uint8_t digit = uint8_t(*p - '0');
    if (digit == 0) {
      if (digits > 0) pending_zeros++;
      trailing_zeros++;
      continue;
    }
    trailing_zeros = 0;
    if (digits + pending_zeros + 1 <= 19 && !d.truncated) {
      for (; pending_zeros > 0; pending_zeros--) {
        d.mantissa *= 10;
        digits++;
      }
      d.mantissa = d.mantissa * 10 + digit;
      digits++;
    } else {
      for (; pending_zeros > 0 && digits < 19; pending_zeros--) {
        d.mantissa *= 10;
        digits++;
      }
      d.truncated = true;
      pending_zeros++;
    }
  }
  int64_t exponent = 0;
  if (p < end) {
    if (*p != 'e' && *p != 'E') return false;
    p++;
    bool negative_exponent = false;
    if (p < end && (*p == '+' || *p == '-')) {
      negative_exponent = *p == '-';
      p++;
    }
    if (p == end) return false;
    for (; p < end; p++) {
      if (!is_digit(*p)) return false;
      // Beyond this nothing changes any more; a payload's length bounds the digits before it.
      if (exponent < 1'000'000'000'000) exponent = exponent * 10 + (*p - '0');
    }
    if (negative_exponent) exponent = -exponent;
  }
  if (d.mantissa != 0) {
    d.exponent = exponent - scale + pending_zeros;
    d.lowest = exponent - scale + trailing_zeros;
  }
  out = d;
  return true;
}

namespace {

// mantissa * 10^exponent with exponent >= 0, as a signed 64-bit integer.
bool scale_up(const Decimal &d, int64_t exponent, int64_t &out) {
  if (d.mantissa == 0) {
    out = 0;
    return true;
  }
  if (d.truncated || exponent > 19) return false;
  uint64_t magnitude = d.mantissa;
  for (; exponent > 0; exponent--) {
    if (__builtin_mul_overflow(magnitude, uint64_t(10), &magnitude)) return false;
  }
  if (magnitude > uint64_t(INT64_MAX) + (d.negative ? 1 : 0)) return false;
  out = d.negative ? int64_t(0 - magnitude) : int64_t(magnitude);
  return true;
}

}  // namespace

Parsed parse_int(const uint8_t *p, const uint8_t *end, int64_t &out) {
  Decimal d;
  if (!parse_decimal(p, end, d)) return Parsed::wrong_type;
  if (d.lowest < 0) return Parsed::wrong_type;
  return scale_up(d, d.exponent, out) ? Parsed::ok : Parsed::out_of_range;
}

Parsed parse_double(const uint8_t *p, const uint8_t *end, double &out) {
  Decimal d;
  if (!parse_decimal(p, end, d)) return Parsed::wrong_type;
  if (d.mantissa == 0) {
    out = d.negative ? -0.0 : 0.0;
    return Parsed::ok;
  }
  if (!d.truncated && d.mantissa <= (uint64_t(1) << 53) && d.exponent >= -22 && d.exponent <= 22) {
    double value = double(d.mantissa);
    value = d.exponent < 0 ? value / exact_powers[-d.exponent] : value * exact_powers[d.exponent];
    out = d.negative ? -value : value;
    return Parsed::ok;
  }
  const char *text = reinterpret_cast<const char *>(p);
  double value = 0;
  auto result = std::from_chars(text, reinterpret_cast<const char *>(end), value);
  if (result.ec == std::errc::result_out_of_range) {
    // Too small is zero or the nearest subnormal; only too large is an error.
    value = std::strtod(std::string(text, size_t(end - p)).c_str(), nullptr);
  }
  if (std::isinf(value)) return Parsed::out_of_range;
  out = value;
  return Parsed::ok;
}

Parsed parse_time_number(const uint8_t *p, const uint8_t *end, int power, int64_t &out) {
  Decimal d;
  if (!parse_decimal(p, end, d)) return Parsed::wrong_type;
  int64_t exponent = d.exponent + power;
  // A truncated mantissa has 19 digits: where it fits at all, what was dropped is less than a nanosecond.
  d.truncated = false;
  if (exponent >= 0) return scale_up(d, exponent, out) ? Parsed::ok : Parsed::out_of_range;
  uint64_t magnitude = 0;
  if (exponent >= -19) {
    uint64_t divisor = 1;
    for (int64_t i = exponent; i < 0; i++) divisor *= 10;
    uint64_t rest = d.mantissa % divisor;
    magnitude = d.mantissa / divisor + (rest >= divisor - rest ? 1 : 0);
  }
  if (magnitude > uint64_t(INT64_MAX)) return Parsed::out_of_range;
  out = d.negative ? -int64_t(magnitude) : int64_t(magnitude);
  return Parsed::ok;
}

namespace {

// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (H. Hinnant, chrono-compatible
// algorithms).
int64_t days_from_civil(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  int64_t era = (year >= 0 ? year : year - 399) / 400;
  int64_t year_of_era = year - era * 400;
  int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + day_of_era - 719468;
}

bool take_digits(const uint8_t *&p, const uint8_t *end, int count, int64_t &out) {
  if (end - p < count) return false;
  out = 0;
  for (int i = 0; i < count; i++, p++) {
    if (!is_digit(*p)) return false;
    out = out * 10 + (*p - '0');
  }
  return true;
}

bool take(const uint8_t *&p, const uint8_t *end, char c) {
  if (p == end || *p != uint8_t(c)) return false;
  p++;
  return true;
}

}  // namespace

Parsed parse_time_text(const uint8_t *p, const uint8_t *end, int64_t &out) {
  int64_t year, month, day, hour, minute, second, nanos = 0, offset_seconds = 0;
  if (!take_digits(p, end, 4, year) || !take(p, end, '-') || !take_digits(p, end, 2, month) ||
      !take(p, end, '-') || !take_digits(p, end, 2, day))
    return Parsed::wrong_type;
  if (!take(p, end, 'T') && !take(p, end, 't') && !take(p, end, ' ')) return Parsed::wrong_type;
  if (!take_digits(p, end, 2, hour) || !take(p, end, ':') || !take_digits(p, end, 2, minute) ||
      !take(p, end, ':') || !take_digits(p, end, 2, second))
    return Parsed::wrong_type;
  static const int month_days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (month < 1 || month > 12) return Parsed::wrong_type;
  bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  int64_t last_day = month_days[month - 1] + (month == 2 && leap ? 1 : 0);
  // Second 60 is a leap second: the first moment of the next minute.
  if (day < 1 || day > last_day || hour > 23 || minute > 59 || second > 60) return Parsed::wrong_type;
  if (take(p, end, '.')) {
    int digits = 0;
    for (; p < end && is_digit(*p); p++, digits++) {
      if (digits < 9) nanos = nanos * 10 + (*p - '0');
    }
    if (digits == 0) return Parsed::wrong_type;
    for (; digits < 9; digits++) nanos *= 10;
  }
  if (p < end) {
    if (!take(p, end, 'Z') && !take(p, end, 'z')) {
      bool west = *p == '-';
      if (!west && *p != '+') return Parsed::wrong_type;
      p++;
      int64_t offset_hour, offset_minute = 0;
      if (!take_digits(p, end, 2, offset_hour)) return Parsed::wrong_type;
      if (p < end) {
        take(p, end, ':');
        if (!take_digits(p, end, 2, offset_minute)) return Parsed::wrong_type;
      }
      if (offset_hour > 23 || offset_minute > 59) return Parsed::wrong_type;
      offset_seconds = (offset_hour * 60 + offset_minute) * 60 * (west ? -1 : 1);
    }
    if (p != end) return Parsed::wrong_type;
  }
  int64_t seconds =
      days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset_seconds;
  int64_t whole;
  if (__builtin_mul_overflow(seconds, int64_t(1'000'000'000), &whole) ||
      __builtin_add_overflow(whole, nanos, &out))
    return Parsed::out_of_range;
  return Parsed::ok;
}

}  // namespace rd
