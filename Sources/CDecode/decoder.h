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
  // RD_FIELD_TIME_NUMBER: `scale` as a power of ten, and that power's value.
  int time_power = 0;
  int64_t time_factor = 1;
  // Another field with the same path, or no_index.
  uint32_t next_same = no_index;
};

// What was learned of the keys' order: the bytes `"key":` as far as 32 of them, in four words.
struct Step {
  uint64_t words[4];
  uint64_t masks[4];
  uint32_t length;
  uint32_t child;  // index among the node's children, or no_index for a member that nobody needs
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

struct Reject {
  rd_reject header;
  std::string reason;
};

struct Parsers;  // the simdjson side, see ondemand.cpp

}  // namespace rd

struct rd_decoder {
  std::vector<rd::Field> fields;
  std::vector<rd::Node> nodes;  // [0] is the root
  // seen[f] == epoch: the field has been met in this record.
  std::vector<uint64_t> seen;
  uint64_t epoch = 0;
  bool simdjson_only = false;
  uint64_t scanned = 0, parsed = 0;
  rd::Arena arena;
  std::vector<rd::Reject> rejects;
  rd::Parsers *parsers = nullptr;
};

namespace rd {

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

// The scalar `token` (no quotes, no blanks) as the value of a field that is no string. What either path
// stores.
Parsed store_scalar(
    rd_decoder &d, rd_rows &rows, uint32_t f, uint32_t row, const uint8_t *token, const uint8_t *end);
// The text of a time.
Parsed store_time_text(
    rd_decoder &d, rd_rows &rows, uint32_t f, uint32_t row, const uint8_t *text, const uint8_t *end);

enum class Scan { decoded, undecided };

// The first path. Decodes the record at `begin` when it is sure of it, and says where it ends: at the first
// control character. Reads up to the first '\n' and RD_PADDING bytes behind it.
Scan scan_record(rd_decoder &d, rd_rows &rows, const uint8_t *begin, const uint8_t *&record_end);

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
  // Unescapes the payload of the envelope just read into the arena, with a '\n' and padding behind it. False
  // when it has an invalid escape.
  bool copy_payload(const Envelope &envelope, Arena &arena, std::string_view &payload);
  std::unique_ptr<struct EnvelopeParser> parser;
};

bool valid_utf8(const uint8_t *data, size_t length);

void destroy_parsers(Parsers *parsers);
EnvelopeReader &envelope_reader(rd_decoder &d);

}  // namespace rd
