// The first path, compiled once for each kind of processor: scan.cpp includes this file several times, each time in
// another namespace and with another RD_SIMD.
//
// Two passes. `build_index` finds the quotes and the control characters of some 16 KiB, without a branch per byte. The
// scanner then walks each record, expecting the keys of the record before it: a string's end is the next quote, so
// nothing is searched for, and the processor can work on several members at once.
//
// It accepts only what simdjson would accept with the same result, and leaves the rest undecided. So which records it
// takes, and hence the order of keys that it has learned, never shows in the output.
//
// Where the scanner stands outside a string, no backslash is before it, so a quote there is one of the index; and the
// index's next quote is always the first one at or behind the place.

#include "scan_index.h"
#include "scan_values.h"

namespace {

class Scanner {
 public:
  Scanner(rd_decoder &d, rd_rows &rows)
      : d(d), columns(rows.columns), seen(d.seen.data()), base(d.index.base), rows(rows),
        field_count(uint32_t(d.fields.size())), has_backslash(d.index.has_backslash) {}

  // From `{` on, `quote` being the first quote behind it. Behind the object's `}`, or behind the last needed value
  // (`remaining` is then 0); NULL: undecided.
  inline __attribute__((always_inline)) const uint8_t *object(Node &node, const uint8_t *p) {
    const Step *step = node.steps.data(), *steps_end = step + node.steps.size();
    // Copies that can stay in registers; `quote` and `remaining` are brought up to date for everybody else.
    const uint32_t *q = quote;
    uint32_t left = remaining;
    const uint8_t *const text = base;
    const uint32_t end_of_record = stop, to = row;
    const uint64_t now = epoch;
    uint64_t *const met = seen;
    rd_column *const out = columns;
    for (bool is_first = true;; is_first = false) {
      // As long as everything is as it was in the record before, one comparison checks all between two values.
      for (; step != steps_end && matches_pattern(*step, p); step++) {
        p += step->pattern_length;
        is_first = false;
        if (step->op == Op::skip_string) {
          uint32_t close = q[3];
          if (close >= end_of_record) return nullptr;
          q += 4;
          p = text + close + 1;
          continue;
        }
        q += 2;
        switch (step->op) {
          case Op::string: {
            uint32_t f = step->field, close = q[1];
            if (close >= end_of_record || has_escape(p, text + close)) return nullptr;
            q += 2;
            uint32_t length = uint32_t(text + close - p);
            const uint8_t *start = p;
            p = text + close + 1;
            if (met[f] == now) continue;
            met[f] = now;
            left--;
            rd_column &column = out[f];
            uint32_t hash = step->wants_hash ? rd_hash_bytes(start, length) : 0;
            static_cast<rd_string *>(column.values)[to] = {start, length, hash};
            if (step->is_nullable) column.validity[to] = 1;
            break;
          }
          case Op::integer:
          case Op::time_number: {
            Digits digits = read_digits(p);
            const uint8_t *end = p + digits.count;
            int64_t result;
            if (digits.count == 0 || !ends_scalar(*end) || (*p == '0' && digits.count > 1) ||
                __builtin_mul_overflow(int64_t(digits.value), step->int_scale, &result)) {
              quote = q;
              remaining = left;
              p = member(node.children[step->child], skip_blanks(p));
              q = quote;
              left = remaining;
              break;
            }
            p = end;
            uint32_t f = step->field;
            if (met[f] == now) continue;
            met[f] = now;
            left--;
            rd_column &column = out[f];
            static_cast<int64_t *>(column.values)[to] = result;
            if (step->is_nullable) column.validity[to] = 1;
            break;
          }
          case Op::decimal: {
            bool is_negative = *p == '-';
            const uint8_t *digits = p + is_negative;
            Point number = read_point(digits);
            const uint8_t *end = digits + number.length;
            if (number.length == 0 || !ends_scalar(*end) ||
                (*digits == '0' && is_digit(digits[1]))) {
              quote = q;
              remaining = left;
              p = member(node.children[step->child], skip_blanks(p));
              q = quote;
              left = remaining;
              break;
            }
            p = end;
            uint32_t f = step->field;
            if (met[f] == now) continue;
            met[f] = now;
            left--;
            // 15 digits at most: both operands are exact, so the quotient is the nearest double (Clinger 1990).
            double result = double(number.value) / exact_powers[number.fraction];
            rd_column &column = out[f];
            static_cast<double *>(column.values)[to] = (is_negative ? -result : result) * step->scale;
            if (step->is_nullable) column.validity[to] = 1;
            break;
          }
          case Op::other:
            p = skip_blanks(p - (p[-1] == '"'));
            quote = q;
            remaining = left;
            p = member(node.children[step->child], p);
            q = quote;
            left = remaining;
            break;
          case Op::skip: {
            const uint8_t *end = scalar_end(p);
            if (__builtin_expect(end == p, 0)) {
              // No scalar, or more blanks than in the record before.
              quote = q;
              end = skip_value(skip_blanks(p));
              q = quote;
              if (!end) return nullptr;
            }
            p = end;
            continue;
          }
          case Op::skip_string:
            break;
        }
        if (!p) return nullptr;
        if (left == 0) {
          quote = q;
          remaining = 0;
          return p;
        }
      }
      quote = q;
      remaining = left;
      if (!is_first) {
        if (*p == '}') return p + 1;
        // Optional members may be missing: look a little ahead.
        const Step *ahead = step;
        const Step *ahead_end = size_t(steps_end - step) > ahead_max ? step + ahead_max : steps_end;
        while (ahead != ahead_end && !matches_pattern(*ahead, p)) ahead++;
        if (ahead != ahead_end) {
          step = ahead;
          continue;
        }
      }
      p = unexpected(node, step, p, is_first);
      q = quote;
      left = remaining;
      steps_end = node.steps.data() + node.steps.size();
      if (!p) return nullptr;
      if (remaining == 0 || is_closed) {
        is_closed = false;
        return p;
      }
    }
  }

  // The record at `p`, from its `{` to the control character at `end`.
  inline __attribute__((always_inline)) const uint8_t *record(
      const uint8_t *p, const uint32_t *first_quote, uint32_t end) {
    quote = first_quote;
    stop = end;
    row = rows.row_count;
    epoch = ++d.epoch;
    remaining = field_count;
    entered = 0;
    return field_count == 0 ? p : object(d.nodes[0], p);
  }

  const uint32_t *next_quote() const { return quote; }
  uint32_t missing() const { return remaining; }

 private:
  // A member that differs from what `step` has learned, from the `{` or from behind the value before. Sets `is_closed`
  // when it is the object's end instead. `step` becomes the next one.
  __attribute__((noinline)) const uint8_t *unexpected(
      Node &node, const Step *&step, const uint8_t *p, bool is_first) {
    size_t index = size_t(step - node.steps.data());
    const uint8_t *begin = is_first ? p : (p = skip_blanks(p));
    if (!is_first && *p == '}') {
      is_closed = true;
      return p + 1;
    }
    if (!is_first && *p != ',') return nullptr;
    p = skip_blanks(p + 1);
    if (is_first && *p == '}') {
      is_closed = true;
      return p + 1;
    }
    if (*p != '"') return nullptr;
    size_t limit = node.steps.size() < index + ahead_max ? node.steps.size() : index + ahead_max;
    size_t hit = index;
    while (hit < limit && !matches_key(node.steps[hit], p)) hit++;
    uint32_t child;
    if (hit < limit) {
      child = node.steps[hit].child;
      quote += 2;
      p = skip_blanks(p + node.steps[hit].length);
      learn_pattern(node, hit, begin, p);
      index = hit + 1;
    } else {
      const uint8_t *open = p;
      uint32_t close = quote[1];
      if (close >= stop || has_escape(open + 1, base + close)) return nullptr;
      quote += 2;
      child = node.find(open + 1, size_t(base + close - open) - 1);
      p = skip_blanks(base + close + 1);
      if (*p != ':') return nullptr;
      p++;
      size_t length = size_t(p - open);
      p = skip_blanks(p);
      if (learn(d, node, index, open, length, child)) {
        // Steps that started over are fewer.
        if (index >= node.steps.size()) index = node.steps.size() - 1;
        learn_pattern(node, index, begin, p);
        index++;
      } else {
        // What comes next in this record is not at an object's start.
        forget_brace(node, index);
      }
    }
    p = child == no_index ? skip_value(p) : member(node.children[child], p);
    step = node.steps.data() + index;
    return p;
  }

  // Whether there is a backslash in [p, end).
  bool has_escape(const uint8_t *p, const uint8_t *end) const {
    return __builtin_expect(has_backslash, 0) && memchr(p, '\\', size_t(end - p)) != nullptr;
  }

  // Behind the string that opens at the next quote; NULL when it is not closed in this record.
  inline const uint8_t *skip_string() {
    uint32_t close = quote[1];
    if (close >= stop) return nullptr;
    quote += 2;
    return base + close + 1;
  }

  // Behind an array or object at `p`. Like simdjson it counts brackets and does not tell their kinds apart.
  __attribute__((noinline)) const uint8_t *skip_nested(const uint8_t *p) {
    size_t depth = 0;
    for (;;) {
      switch (*p) {
        case '"':
          p = skip_string();
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
    if (*p == '"') return skip_string();
    if (*p == '{' || *p == '[') return skip_nested(p);
    const uint8_t *end = scalar_end(p);
    return p == end ? nullptr : end;
  }

  // Notes that the field has its value. False when it had one before: of a repeated member the first counts.
  inline bool take(uint32_t f) {
    if (seen[f] == epoch) return false;
    seen[f] = epoch;
    remaining--;
    return true;
  }

  // A scalar that is no string, null among them, as the field's value.
  __attribute__((noinline)) const uint8_t *scalar(uint32_t f, const uint8_t *p) {
    const uint8_t *end = scalar_end(p);
    if (end == p || !ends_scalar(*end)) return nullptr;
    if (end - p == 4 && memcmp(p, "null", 4) == 0) return store_absent(d, rows, f, row) ? end : nullptr;
    if (store_scalar(d, rows, f, row, p, end) != Parsed::ok) return nullptr;
    store_present(d, rows, f, row);
    return end;
  }

  // Objects, several fields of one member, and members met where they have not been learned.
  __attribute__((noinline)) const uint8_t *member(const Node::Child &child, const uint8_t *p) {
    if (child.node != no_index) {
      // Null, a scalar or a second occurrence: rare, and simdjson knows.
      if (child.field != no_index || *p != '{' || entered >> (child.node & 63) & 1) return nullptr;
      entered |= uint64_t(1) << (child.node & 63);
      return object(d.nodes[child.node], p);
    }
    if (seen[child.field] == epoch) return skip_value(p);
    uint32_t close = quote[1];
    bool is_string = *p == '"';
    if (is_string && (close >= stop || has_escape(p + 1, base + close))) return nullptr;
    const uint8_t *end = nullptr;
    for (uint32_t f = child.field; f != no_index; f = d.fields[f].next_same) {
      take(f);
      uint8_t type = d.fields[f].spec.type;
      if (!is_string) {
        end = scalar(f, p);
        if (!end) return nullptr;
        continue;
      }
      end = base + close + 1;
      if (type == RD_FIELD_STRING) {
        store_string(d, rows, f, row, p + 1, size_t(base + close - p) - 1);
      } else if (
          type != RD_FIELD_TIME_TEXT ||
          store_time_text(d, rows, f, row, p + 1, base + close) != Parsed::ok) {
        return nullptr;
      }
      store_present(d, rows, f, row);
    }
    if (is_string) quote += 2;
    return end;
  }

  rd_decoder &d;
  rd_column *columns;
  uint64_t *seen;
  const uint8_t *base;
  rd_rows &rows;
  uint32_t field_count;
  bool has_backslash;
  // Of the record that is read.
  bool is_closed = false;
  uint32_t row = 0;
  uint32_t stop = 0;
  uint32_t remaining = 0;
  const uint32_t *quote = nullptr;  // the first that is not behind the place
  uint64_t epoch = 0;
  uint64_t entered = 0;
};

// Whether strings are closed and a `}` ends the record from `p` on. Moves the index behind the record.
inline bool finish(Index &index, size_t quote, uint32_t stop, const uint8_t *p) {
  const uint32_t *quotes = index.quotes.get();
  // Most records of a stream have as many quotes there as the one before.
  size_t tail = index.tail, end = quote + tail;
  if (!(end <= index.quote_count && quotes[end] >= stop && (tail == 0 || quotes[end - 1] < stop))) {
    for (end = quote; quotes[end] < stop; end++) {
    }
    index.tail = end - quote;
  }
  index.quote = end;
  if ((end - quote) % 2 != 0) return false;
  const uint8_t *last = index.base + stop - 1;
  if (__builtin_expect(*last == '}' && last >= p, 1)) return true;
  while (last > p && *last == ' ') last--;
  return last >= p && *last == '}';
}

// The record at `begin`.
inline __attribute__((always_inline)) Scan scan_one(
    rd_decoder &d, Scanner &scanner, rd_rows &rows, const uint8_t *begin, const uint8_t *&record_end) {
  Index &index = d.index;
  uint32_t at = uint32_t(begin - index.base);
  const uint32_t *quotes = index.quotes.get(), *stops = index.stops.get();
  // A record that was left undecided may have left the index at its start, its end or between.
  while (stops[index.stop] < at) index.stop++;
  while (index.quote > 0 && quotes[index.quote - 1] >= at) index.quote--;
  while (quotes[index.quote] < at) index.quote++;
  uint32_t stop = stops[index.stop];
  if (stop == no_index) return Scan::undecided;
  const uint8_t *p = begin;
  if (__builtin_expect(*p != '{', 0)) {
    p = skip_blanks(p);
    if (*p != '{') return Scan::undecided;
  }
  p = scanner.record(p, quotes + index.quote, stop);
  if (!p) return Scan::undecided;
  record_end = index.base + stop;
  size_t quote = size_t(scanner.next_quote() - quotes);
  if (scanner.missing() == 0) return finish(index, quote, stop, p) ? Scan::decoded : Scan::undecided;
  p = skip_blanks(p);
  if (p != record_end) return Scan::undecided;
  index.quote = quote;
  for (uint32_t f = 0; f < d.fields.size(); f++) {
    if (d.seen[f] != d.epoch && !store_absent(d, rows, f, rows.row_count)) return Scan::undecided;
  }
  return Scan::decoded;
}

Scan scan_record(rd_decoder &d, rd_rows &rows, const uint8_t *begin, const uint8_t *&record_end) {
  if (d.nodes.size() > nodes_max) return Scan::undecided;
  Scanner scanner(d, rows);
  return scan_one(d, scanner, rows, begin, record_end);
}

const uint8_t *scan_lines(
    rd_decoder &d, rd_rows &rows, const uint8_t *p, const uint8_t *end, size_t line_bytes_max, int64_t &number) {
  if (d.nodes.size() > nodes_max) return p;
  Scanner scanner(d, rows);
  while (p < end && rows.row_count < rows.capacity) {
    const uint8_t *line_end;
    if (scan_one(d, scanner, rows, p, line_end) != Scan::decoded) break;
    size_t length = size_t(line_end - p);
    bool has_return = *line_end == '\r';
    if (length > line_bytes_max || line_end[has_return] != '\n') break;
    take_row(rows, number++, INT64_MIN, p, length);
    d.scanned++;
    p = line_end + has_return + 1;
  }
  return p;
}

}  // namespace

constexpr ScanKernel kernel = {build_index, scan_record, scan_lines};
