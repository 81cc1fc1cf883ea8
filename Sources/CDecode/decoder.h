// The decoder's inside: the needed members as a tree, the row that is being written, rejects and the arena.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "CDecode.h"
#include "numbers.h"

namespace rd {

constexpr uint32_t no_index = UINT32_MAX;

struct Field {
  rd_field_spec spec;
  std::string dotted;  // "ctx.route", for reasons
  std::string default_text;
  uint32_t default_hash = 0;
  int time_power = 0;
  // Another field with the same path, or no_index.
  uint32_t next_same = no_index;
};

// What a scanner does with a member that stands at a learned place.
enum class Op : uint8_t { skip, skip_string, integer, time_number, decimal, string, other };

// What was learned of the keys' order, with all that the member's value needs, so that nothing else is looked up on the
// way. The key is kept twice: as `"key":`, and with whatever stood around it in the last record, which is what the next
// one will most likely have there, too.
struct alignas(64) Step {
  // From behind the value before to the first byte of the value: `,"key":`, or `, "key": "` for a string.
  uint8_t pattern[32];
  uint32_t pattern_mask;  // a bit for each byte
  uint32_t pattern_length;
  uint32_t mask;
  uint32_t length;
  uint8_t key[32];
  uint32_t child;  // index among the node's children, or no_index for a member that nobody needs
  uint32_t field;  // for the ops of one field
  double scale;
  int64_t int_scale;
  Op op;          // for a value that follows `pattern`
  Op needed;      // what the field's type asks for; `skip` when there is no field
  bool is_nullable, wants_hash;
};

// An object on the way to needed members.
struct Node {
  struct Child {
    std::string key;
    uint32_t field = no_index;  // first of the fields that this member is
    uint32_t node = no_index;   // the object that it is
  };
  std::vector<Child> children;
  std::vector<Step> steps;
  uint32_t misses = 0;

  uint32_t find(const uint8_t *key, size_t length) const {
    for (uint32_t i = 0; i < children.size(); i++) {
      const std::string &candidate = children[i].key;
      if (candidate.size() == length && memcmp(candidate.data(), key, length) == 0) return i;
    }
    return no_index;
  }
};

// Memory that stays in place until the next call: unescaped strings and payloads.
class Arena {
 public:
  uint8_t *allocate(size_t bytes) {
    if (bytes > left_) grow(bytes);
    uint8_t *result = next_;
    next_ += bytes;
    left_ -= bytes;
    return result;
  }
  // Gives back the end of the last allocation.
  void shrink(size_t bytes) {
    next_ -= bytes;
    left_ += bytes;
  }
  void clear();

 private:
  void grow(size_t bytes);
  struct Block {
    std::unique_ptr<uint8_t[]> bytes;
    size_t size;
  };
  std::vector<Block> blocks_;
  uint8_t *next_ = nullptr;
  size_t left_ = 0;
};

// Where the quotes and the control characters of a stretch of whole records are: offsets from `base`, ascending, with
// no_index behind the last. A quote behind an odd number of backslashes is none. Grows with the longest stretch.
struct Index {
  const uint8_t *base = nullptr;
  std::unique_ptr<uint32_t[]> quotes, stops;
  size_t capacity = 0;
  size_t quote_count = 0;
  bool is_ascii = false;
  bool has_backslash = false;
  // The reader's place: the first quote and the first stop that it has not passed.
  size_t quote = 0, stop = 0;
  // How many quotes the last record had behind its last needed member.
  size_t tail = 0;

  void reserve(size_t length);
  void release_large();
};

struct Reject {
  rd_reject header;
  std::string reason;
};

struct Parsers;  // the simdjson side, see ondemand.cpp

enum class Scan { decoded, undecided };

// The first path, as compiled for one kind of processor (scan_kernel.h).
struct ScanKernel {
  // Fills `index` for the bytes from `begin` on. Reads up to 63 bytes behind them.
  void (*build_index)(Index &index, const uint8_t *begin, size_t length);
  // Decodes the record at `begin`, which lies in the indexed stretch behind all records scanned before, when it is sure
  // of it, and says where it ends: at the first control character. Reads up to RD_PADDING bytes behind that.
  Scan (*scan_record)(rd_decoder &d, rd_rows &rows, const uint8_t *begin, const uint8_t *&record_end);
  // Decodes lines from `begin` on, the first of which has the number `number`, as long as they are decided, have no more
  // than `line_bytes_max` bytes and end before `end`, up to which the text is indexed. Returns where it stopped.
  const uint8_t *(*scan_lines)(
      rd_decoder &d, rd_rows &rows, const uint8_t *begin, const uint8_t *end, size_t line_bytes_max,
      int64_t &number);
};

// The best that this processor can run, or what rd_use_scan_variant has asked for on this thread.
const ScanKernel &scan_kernel();

}  // namespace rd

struct rd_decoder {
  std::vector<rd::Field> fields;
  std::vector<rd::Node> nodes;  // [0] is the root
  // seen[f] == epoch: the field has been met in this record.
  std::vector<uint64_t> seen;
  uint64_t epoch = 0;
  bool simdjson_only = false;
  uint64_t scanned = 0, parsed = 0;
  const rd::ScanKernel *kernel = nullptr;
  rd::Index index;
  rd::Arena arena;
  std::vector<rd::Reject> rejects;
  rd::Parsers *parsers = nullptr;
};

namespace rd {

// Completes the row whose columns have been written.
inline void take_row(rd_rows &rows, int64_t offset, int64_t record_time, const uint8_t *payload, size_t length) {
  uint32_t row = rows.row_count++;
  rows.offsets[row] = offset;
  rows.record_times[row] = record_time;
  rows.payloads[row] = {payload, uint32_t(length), 0};
}

// Writes of one row. `row` is the slot; the record counts only when `row_count` moves on.
inline void store_present(rd_decoder &d, rd_rows &rows, uint32_t f, uint32_t row) {
  if (d.fields[f].spec.absence == RD_ABSENT_NULL) rows.columns[f].validity[row] = 1;
}

inline void store_string(
    rd_decoder &d, rd_rows &rows, uint32_t f, uint32_t row, const uint8_t *data, size_t length) {
  uint32_t hash = d.fields[f].spec.wants_hash ? rd_hash_bytes(data, uint32_t(length)) : 0;
  static_cast<rd_string *>(rows.columns[f].values)[row] = {data, uint32_t(length), hash};
}

// What a missing or null member means. Returns false when it rejects the record.
inline bool store_absent(rd_decoder &d, rd_rows &rows, uint32_t f, uint32_t row) {
  const Field &field = d.fields[f];
  rd_column &column = rows.columns[f];
  bool is_default = field.spec.absence == RD_ABSENT_DEFAULT;
  if (field.spec.absence == RD_ABSENT_REJECT) return false;
  if (!is_default) {
    column.validity[row] = 0;
    column.has_nulls = 1;
  }
  // A null's value is initialised, so that nothing of an earlier batch shows through.
  switch (field.spec.type) {
    case RD_FIELD_BOOL:
      static_cast<uint8_t *>(column.values)[row] = is_default ? uint8_t(field.spec.default_int != 0) : 0;
      break;
    case RD_FIELD_INT:
    case RD_FIELD_TIME_NUMBER:
    case RD_FIELD_TIME_TEXT:
      static_cast<int64_t *>(column.values)[row] = is_default ? field.spec.default_int : 0;
      break;
    case RD_FIELD_FLOAT:
      static_cast<double *>(column.values)[row] = is_default ? field.spec.default_double : 0;
      break;
    case RD_FIELD_STRING:
      static_cast<rd_string *>(column.values)[row] = {
          reinterpret_cast<const uint8_t *>(field.default_text.data()),
          is_default ? uint32_t(field.default_text.size()) : 0, is_default ? field.default_hash : 0};
      break;
  }
  return true;
}

// The scalar `token` (no quotes, no blanks) as the value of a field that is no string. What either path stores.
Parsed store_scalar(
    rd_decoder &d, rd_rows &rows, uint32_t f, uint32_t row, const uint8_t *token, const uint8_t *end);
// The text of a time.
Parsed store_time_text(
    rd_decoder &d, rd_rows &rows, uint32_t f, uint32_t row, const uint8_t *text, const uint8_t *end);

// Remembers that the key between the quotes at `quote`, `length` bytes with its colon, stood before step `index`.
bool learn(rd_decoder &d, Node &node, size_t index, const uint8_t *quote, size_t length, uint32_t child);
// Remembers what stood around the key of step `index`: the bytes from `begin` up to the value at `value`. A pattern that
// starts with the object's `{` is kept for step 0 only, and only an object's start is ever compared with that.
void learn_pattern(Node &node, size_t index, const uint8_t *begin, const uint8_t *value);
// Forgets a step's pattern when it starts with `{`.
void forget_brace(Node &node, size_t index);

// The second path. On false, `reason` says why the record is none.
bool parse_record(
    rd_decoder &d, rd_rows &rows, const uint8_t *begin, const uint8_t *end, std::string &reason);

// A line of `kcat -J`; the views point into the line.
struct Envelope {
  std::string_view topic;
  int32_t partition = 0;
  int64_t offset = 0;
  int64_t record_time = INT64_MIN;
  std::string_view payload;  // as JSON; data() is NULL for null
  bool payload_is_string = false;
};

struct EnvelopeReader {
  EnvelopeReader();
  ~EnvelopeReader();
  // False when the line is no envelope. RD_PADDING bytes are readable behind it.
  bool read(const uint8_t *line, size_t length, Envelope &out);
  // Unescapes the payload of the envelope just read into the arena, with a '\n' and padding behind it. False when it
  // has an invalid escape.
  bool copy_payload(const Envelope &envelope, Arena &arena, std::string_view &payload);
  std::unique_ptr<struct EnvelopeParser> parser;
};

bool read_envelope_extra(const uint8_t *line, size_t length, rd_envelope_extra &out);

bool valid_utf8(const uint8_t *data, size_t length);

void destroy_parsers(Parsers *parsers);
EnvelopeReader &envelope_reader(rd_decoder &d);

}  // namespace rd
