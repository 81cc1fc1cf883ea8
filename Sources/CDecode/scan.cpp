// The first path: walk a record's bytes once, expecting the keys of the record before it.
//
// It accepts only what simdjson would accept with the same result, and leaves the rest undecided. So which
// records it takes, and hence the order of keys that it has learned, never shows in the output.
#include "decoder.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace rd {
namespace {

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

inline const uint8_t *skip_blanks(const uint8_t *p) {
  while (*p == ' ') p++;
  return p;
}

// The first quote, backslash or control character at or behind `p`. A '\n' ends every record.
#if defined(__SSE2__)
inline const uint8_t *string_end(const uint8_t *p) {
  const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
  for (;; p += 16) {
    __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    __m128i hit = _mm_or_si128(
        _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)),
        _mm_cmpeq_epi8(_mm_min_epu8(v, control), v));
    if (unsigned mask = unsigned(_mm_movemask_epi8(hit))) return p + __builtin_ctz(mask);
  }
}
#else
inline const uint8_t *string_end(const uint8_t *p) {
  const uint64_t ones = 0x0101010101010101ull, high = 0x8080808080808080ull;
  for (;; p += 8) {
    uint64_t v = rd_load64(p), q = v ^ (ones * '"'), b = v ^ (ones * '\\');
    // The lowest set bit of each term is exact; a borrow can only disturb what lies above it.
    uint64_t hit = (((q - ones) & ~q) | ((b - ones) & ~b) | ((v - ones * 0x20) & ~v)) & high;
    if (hit) return p + __builtin_ctzll(hit) / 8;
  }
}
#endif

// Behind the closing quote of the string whose first byte is at `p`; NULL when it is not closed in this
// record.
inline const uint8_t *skip_string(const uint8_t *p) {
  for (;;) {
    p = string_end(p);
    if (*p == '"') return p + 1;
    if (*p != '\\' || p[1] < 0x20) return nullptr;
    p += 2;
  }
}

// Behind an array or object at `p`. Like simdjson it counts brackets and does not tell their kinds apart.
const uint8_t *skip_nested(const uint8_t *p) {
  size_t depth = 0;
  for (;;) {
    switch (*p) {
      case '"':
        p = skip_string(p + 1);
        if (!p) return nullptr;
        continue;
      case '{':
      case '[':
        depth++;
        break;
      case '}':
      case ']':
        if (--depth == 0) return p + 1;
        break;
      case '\\':
        return nullptr;
      default:
        if (*p < 0x20) return nullptr;
    }
    p++;
  }
}

inline const uint8_t *skip_value(const uint8_t *p) {
  if (*p == '"') return skip_string(p + 1);
  if (*p == '{' || *p == '[') return skip_nested(p);
  const uint8_t *start = p;
  while (scalar_byte.is[*p]) p++;
  return p == start ? nullptr : p;
}

inline bool ends_scalar(uint8_t c) { return c == ',' || c == '}' || c == ' '; }

// From `p`, outside any string, to the record's end: strings must close and the last byte must be `}`.
const uint8_t *finish_carefully(const uint8_t *p, bool in_string) {
  uint8_t last = 0;
  for (;; p++) {
    if (*p < 0x20) break;
    if (in_string) {
      if (*p == '\\') {
        if (p[1] < 0x20) return nullptr;
        p++;
      } else if (*p == '"') {
        in_string = false;
      }
    } else if (*p == '"') {
      in_string = true;
      last = '"';
    } else if (*p == '\\') {
      return nullptr;
    } else if (*p != ' ') {
      last = *p;
    }
  }
  return !in_string && last == '}' ? p : nullptr;
}

inline const uint8_t *check_last(const uint8_t *start, const uint8_t *end) {
  const uint8_t *last = end;
  while (last > start && last[-1] == ' ') last--;
  return last > start && last[-1] == '}' ? end : nullptr;
}

#if defined(__SSE2__)
inline const uint8_t *finish(const uint8_t *p) {
  const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
  const uint8_t *start = p;
  unsigned quotes = 0;
  for (;; p += 16) {
    __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    unsigned q = unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(v, quote)));
    unsigned b = unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(v, backslash)));
    unsigned c = unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, control), v)));
    if (__builtin_expect((b | c) != 0, 0)) {
      if (!c || __builtin_ctz(b | c) < __builtin_ctz(c))
        return finish_carefully(p, __builtin_parity(quotes));
      q &= (c & (0 - c)) - 1;
      quotes ^= q;
      if (__builtin_parity(quotes)) return nullptr;
      return check_last(start, p + __builtin_ctz(c));
    }
    quotes ^= q;
  }
}
#else
inline const uint8_t *finish(const uint8_t *p) { return finish_carefully(p, false); }
#endif

inline bool matches(const Step &step, const uint8_t *p) {
  uint64_t difference = (rd_load64(p) ^ step.words[0]) & step.masks[0];
  if (step.length > 8) difference |= (rd_load64(p + 8) ^ step.words[1]) & step.masks[1];
  if (step.length > 16) {
    difference |= (rd_load64(p + 16) ^ step.words[2]) & step.masks[2];
    difference |= (rd_load64(p + 24) ^ step.words[3]) & step.masks[3];
  }
  return difference == 0;
}

constexpr size_t steps_max = 64;

// Remembers that the key between the quotes at `quote` stood before step `index`.
bool learn(Node &node, size_t index, const uint8_t *quote, size_t length, uint32_t child) {
  if (length > 32) return false;
  if (node.steps.size() >= steps_max) {
    // Either the producer writes its keys in any order, or a new version of it came: now and then, start
    // over.
    if (++node.misses < 1000) return false;
    node.misses = 0;
    node.steps.clear();
  }
  // A record that started over goes on with its old index.
  if (index > node.steps.size()) index = node.steps.size();
  Step step{};
  uint8_t bytes[32] = {}, mask[32] = {};
  memcpy(bytes, quote, length);
  memset(mask, 0xff, length);
  memcpy(step.words, bytes, 32);
  memcpy(step.masks, mask, 32);
  step.length = uint32_t(length);
  step.child = child;
  node.steps.insert(node.steps.begin() + ptrdiff_t(index), step);
  return true;
}

class Scanner {
 public:
  Scanner(rd_decoder &d, rd_rows &rows) : d(d), rows(rows), row(rows.row_count) {}

  // From `{` on. Behind the object's `}`, or behind the last needed value (`remaining` is then 0); NULL:
  // undecided.
  const uint8_t *object(Node &node, const uint8_t *p) {
    p = skip_blanks(p + 1);
    if (*p == '}') return p + 1;
    for (size_t index = 0;;) {
      if (*p != '"') return nullptr;
      uint32_t child;
      size_t steps = node.steps.size();
      size_t hit = index;
      if (hit < steps && matches(node.steps[hit], p)) {
        child = node.steps[hit].child;
        p += node.steps[hit].length;
        index = hit + 1;
      } else {
        // Optional members may be missing: look a little ahead.
        size_t limit = steps < index + 5 ? steps : index + 5;
        for (hit = index + 1; hit < limit && !matches(node.steps[hit], p); hit++) {
        }
        if (hit < limit) {
          child = node.steps[hit].child;
          p += node.steps[hit].length;
          index = hit + 1;
        } else {
          const uint8_t *quote = p;
          const uint8_t *end = string_end(p + 1);
          if (*end != '"') return nullptr;
          child = node.find(quote + 1, size_t(end - quote) - 1);
          p = skip_blanks(end + 1);
          if (*p != ':') return nullptr;
          p++;
          if (learn(node, index, quote, size_t(p - quote), child)) index++;
        }
      }
      p = skip_blanks(p);
      p = child == no_index ? skip_value(p) : member(node.children[child], p);
      if (!p) return nullptr;
      if (remaining == 0) return p;
      p = skip_blanks(p);
      if (*p == ',') {
        p = skip_blanks(p + 1);
      } else if (*p == '}') {
        return p + 1;
      } else {
        return nullptr;
      }
    }
  }

  const uint8_t *member(const Node::Child &child, const uint8_t *p) {
    if (child.node != no_index) {
      // Null, a scalar or a second occurrence: rare, and simdjson knows.
      if (child.field != no_index || *p != '{' || entered >> (child.node & 63) & 1) return nullptr;
      entered |= uint64_t(1) << (child.node & 63);
      return object(d.nodes[child.node], p);
    }
    uint32_t f = child.field;
    if (d.seen[f] == d.epoch) return skip_value(p);
    const uint8_t *end = nullptr;
    for (; f != no_index; f = d.fields[f].next_same) {
      end = value(f, p);
      if (!end) return nullptr;
      d.seen[f] = d.epoch;
      remaining--;
    }
    return end;
  }

  const uint8_t *value(uint32_t f, const uint8_t *p) {
    const Field &field = d.fields[f];
    rd_column &column = rows.columns[f];
    switch (field.spec.type) {
      case RD_FIELD_STRING: {
        if (*p != '"') break;
        const uint8_t *end = string_end(p + 1);
        if (*end != '"') return nullptr;
        store_string(d, rows, f, row, p + 1, size_t(end - p) - 1);
        store_present(d, rows, f, row);
        return end + 1;
      }
      case RD_FIELD_TIME_TEXT: {
        if (*p != '"') break;
        const uint8_t *end = string_end(p + 1);
        if (*end != '"') return nullptr;
        if (store_time_text(d, rows, f, row, p + 1, end) != Parsed::ok) return nullptr;
        store_present(d, rows, f, row);
        return end + 1;
      }
      case RD_FIELD_INT:
      case RD_FIELD_TIME_NUMBER: {
        const uint8_t *q = p;
        uint64_t magnitude = 0;
        uint64_t word = rd_load64(q);
        if (is_eight_digits(word)) {
          magnitude = eight_digits(word);
          q += 8;
        }
        while (is_digit(*q) && q - p < 18) magnitude = magnitude * 10 + uint64_t(*q++ - '0');
        if (q == p || !ends_scalar(*q) || (*p == '0' && q - p > 1)) break;
        int64_t result = int64_t(magnitude);
        if (field.spec.type == RD_FIELD_TIME_NUMBER &&
            __builtin_mul_overflow(result, field.time_factor, &result))
          return nullptr;
        static_cast<int64_t *>(column.values)[row] = result;
        store_present(d, rows, f, row);
        return q;
      }
      case RD_FIELD_FLOAT: {
        const uint8_t *q = p;
        bool negative = *q == '-';
        q += negative;
        const uint8_t *digits = q;
        uint64_t mantissa = 0;
        while (is_digit(*q) && q - digits < 18) mantissa = mantissa * 10 + uint64_t(*q++ - '0');
        ptrdiff_t whole = q - digits;
        if (whole == 0 || (*digits == '0' && whole > 1)) break;
        ptrdiff_t fraction = 0;
        if (*q == '.') {
          const uint8_t *point = ++q;
          while (is_digit(*q) && q - digits < 18) mantissa = mantissa * 10 + uint64_t(*q++ - '0');
          fraction = q - point;
          if (fraction == 0) break;
        }
        if (!ends_scalar(*q) || mantissa > uint64_t(1) << 53) break;
        // Both operands are exact, so the quotient is the nearest double (Clinger 1990).
        double result = double(mantissa) / exact_powers[fraction];
        static_cast<double *>(column.values)[row] = (negative ? -result : result) * field.spec.scale;
        store_present(d, rows, f, row);
        return q;
      }
      case RD_FIELD_BOOL:
        break;
    }
    // Other scalars, null among them.
    const uint8_t *end = p;
    while (scalar_byte.is[*end]) end++;
    if (end == p || !ends_scalar(*end)) return nullptr;
    if (end - p == 4 && memcmp(p, "null", 4) == 0)
      return store_absent(d, rows, f, row) ? end : nullptr;
    if (store_scalar(d, rows, f, row, p, end) != Parsed::ok) return nullptr;
    store_present(d, rows, f, row);
    return end;
  }

  rd_decoder &d;
  rd_rows &rows;
  uint32_t row;
  uint32_t remaining = 0;
  uint64_t entered = 0;
};

}  // namespace

Scan scan_record(rd_decoder &d, rd_rows &rows, const uint8_t *begin, const uint8_t *&record_end) {
  const uint8_t *p = skip_blanks(begin);
  if (*p != '{' || d.nodes.size() > 64) return Scan::undecided;
  Scanner scanner(d, rows);
  scanner.remaining = uint32_t(d.fields.size());
  d.epoch++;
  if (scanner.remaining > 0) {
    p = scanner.object(d.nodes[0], p);
    if (!p) return Scan::undecided;
  }
  if (scanner.remaining > 0) {
    p = skip_blanks(p);
    if (*p >= 0x20) return Scan::undecided;
    for (uint32_t f = 0; f < d.fields.size(); f++) {
      if (d.seen[f] != d.epoch && !store_absent(d, rows, f, scanner.row)) return Scan::undecided;
    }
    record_end = p;
    return Scan::decoded;
  }
  p = finish(p);
  if (!p) return Scan::undecided;
  record_end = p;
  return Scan::decoded;
}

}  // namespace rd
