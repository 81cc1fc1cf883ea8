// The C interface: making a decoder, splitting lines, handing each record to the two paths, keeping rejects.
#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace rd {

namespace {
constexpr size_t block_bytes = 256 * 1024;
constexpr size_t path_depth_max = 32;
// Text is indexed and checked for UTF-8 a stretch at a time, small enough that it is still in the first-level cache when
// its records are read.
constexpr size_t check_bytes = 16 * 1024;
constexpr size_t index_entries_kept = 512 * 1024;
}  // namespace

void Arena::clear() {
  // One block of the usual size stays; larger ones were for a rare payload.
  while (blocks_.size() > 1 || (!blocks_.empty() && blocks_.back().size > block_bytes)) blocks_.pop_back();
  next_ = blocks_.empty() ? nullptr : blocks_[0].bytes.get();
  left_ = blocks_.empty() ? 0 : blocks_[0].size;
}

void Arena::grow(size_t bytes) {
  size_t size = std::max(bytes, block_bytes);
  blocks_.push_back({std::unique_ptr<uint8_t[]>(new uint8_t[size]()), size});
  next_ = blocks_.back().bytes.get();
  left_ = size;
}

void Index::reserve(size_t length) {
  // A block writes some entries more than it has.
  size_t wanted = length + 128;
  if (wanted <= capacity) return;
  wanted = std::max(wanted, 2 * check_bytes);
  quotes.reset(new uint32_t[wanted]);
  stops.reset(new uint32_t[wanted]);
  capacity = wanted;
}

void Index::release_large() {
  if (capacity <= index_entries_kept) return;
  quotes.reset();
  stops.reset();
  capacity = 0;
}

Parsed store_scalar(
    rd_decoder &d, rd_rows &rows, uint32_t f, uint32_t row, const uint8_t *token, const uint8_t *end) {
  const Field &field = d.fields[f];
  void *values = rows.columns[f].values;
  switch (field.spec.type) {
    case RD_FIELD_BOOL: {
      bool is_true = end - token == 4 && memcmp(token, "true", 4) == 0;
      bool is_false = end - token == 5 && memcmp(token, "false", 5) == 0;
      if (!is_true && !is_false) return Parsed::wrong_type;
      static_cast<uint8_t *>(values)[row] = is_true;
      return Parsed::ok;
    }
    case RD_FIELD_INT:
      return parse_int(token, end, static_cast<int64_t *>(values)[row]);
    case RD_FIELD_TIME_NUMBER:
      return parse_time_number(token, end, field.time_power, static_cast<int64_t *>(values)[row]);
    case RD_FIELD_FLOAT: {
      double value;
      Parsed parsed = parse_double(token, end, value);
      if (parsed != Parsed::ok) return parsed;
      value *= field.spec.scale;
      if (std::isinf(value)) return Parsed::out_of_range;
      static_cast<double *>(values)[row] = value;
      return Parsed::ok;
    }
    default:
      return Parsed::wrong_type;
  }
}

Parsed store_time_text(
    rd_decoder &, rd_rows &rows, uint32_t f, uint32_t row, const uint8_t *text, const uint8_t *end) {
  return parse_time_text(text, end, static_cast<int64_t *>(rows.columns[f].values)[row]);
}

namespace {

void add_reject(
    rd_decoder &d, const rd_rows &rows, int64_t offset, int64_t record_time, std::string reason,
    const uint8_t *payload, size_t length) {
  d.rejects.push_back(
      {{rows.row_count, offset, record_time, nullptr, 0, payload, length}, std::move(reason)});
}

// Indexes a stretch of whole records. Returns whether it is valid UTF-8.
bool index_text(rd_decoder &d, const uint8_t *begin, size_t length) {
  d.kernel->build_index(d.index, begin, length);
  return d.index.is_ascii || valid_utf8(begin, length);
}

// A record in the indexed stretch whose end is known, followed by '\n'; valid UTF-8 unless `unchecked`.
void decode_one(
    rd_decoder &d, rd_rows &rows, const uint8_t *begin, const uint8_t *end, bool unchecked, int64_t offset,
    int64_t record_time) {
  if (unchecked && !valid_utf8(begin, size_t(end - begin))) {
    add_reject(d, rows, offset, record_time, "not valid UTF-8", begin, size_t(end - begin));
    return;
  }
  const uint8_t *scan_end;
  if (!d.simdjson_only && d.kernel->scan_record(d, rows, begin, scan_end) == Scan::decoded && scan_end == end) {
    d.scanned++;
    take_row(rows, offset, record_time, begin, size_t(end - begin));
    return;
  }
  d.parsed++;
  std::string reason;
  if (parse_record(d, rows, begin, end, reason)) {
    take_row(rows, offset, record_time, begin, size_t(end - begin));
  } else {
    add_reject(d, rows, offset, record_time, std::move(reason), begin, size_t(end - begin));
  }
}

void start_call(rd_decoder &d) {
  d.rejects.clear();
  d.arena.clear();
  d.index.release_large();
}

std::string too_long(size_t bytes_max) {
  if (bytes_max % (1 << 20) == 0) return "line longer than " + std::to_string(bytes_max >> 20) + " MiB";
  return "line longer than " + std::to_string(bytes_max) + " bytes";
}

// The line at `begin`: its text without the line end, and where the next one starts.
const uint8_t *line_end(const uint8_t *begin, const uint8_t *limit, const uint8_t *&next) {
  const uint8_t *end =
      static_cast<const uint8_t *>(memchr(begin, '\n', size_t(limit - begin)));
  next = end + 1;
  return end > begin && end[-1] == '\r' ? end - 1 : end;
}

// Whose line it is, told by its first two members as kcat writes them: `{"topic":"t","partition":0,`. False: read it all.
bool envelope_owner(const uint8_t *p, const uint8_t *end, std::string_view &topic, int32_t &partition) {
  static const char head[] = "{\"topic\":\"", middle[] = "\",\"partition\":";
  const size_t head_length = sizeof head - 1, middle_length = sizeof middle - 1;
  if (size_t(end - p) < head_length || memcmp(p, head, head_length) != 0) return false;
  const uint8_t *start = p + head_length;
  for (p = start; p < end && *p > ' ' && *p != '"' && *p != '\\'; p++) {
  }
  topic = std::string_view(reinterpret_cast<const char *>(start), size_t(p - start));
  if (size_t(end - p) < middle_length || memcmp(p, middle, middle_length) != 0) return false;
  start = p += middle_length;
  partition = 0;
  for (; p < end && is_digit(*p) && p - start < 9; p++) partition = partition * 10 + (*p - '0');
  return p > start && p < end && *p == ',';
}

void decode_envelope(
    rd_decoder &d, rd_lines &lines, rd_rows &rows, const uint8_t *begin, const uint8_t *end) {
  size_t length = size_t(end - begin);
  std::string_view wanted(reinterpret_cast<const char *>(lines.topic.data), lines.topic.length), topic;
  int32_t partition;
  bool is_owned = envelope_owner(begin, end, topic, partition);
  if (is_owned && (partition != lines.partition || topic != wanted)) {
    lines.others++;
    return;
  }
  // A line that says whose it is but is damaged behind that is its owner's; others are the first reader's.
  auto damaged = [&](std::string reason) {
    if (is_owned || lines.takes_strays)
      add_reject(d, rows, lines.next_offset, INT64_MIN, std::move(reason), begin, length);
  };
  if (length > lines.line_bytes_max) return damaged(too_long(lines.line_bytes_max));
  Envelope envelope;
  EnvelopeReader &reader = envelope_reader(d);
  // simdjson checks the line's UTF-8 itself.
  if (!reader.read(begin, length, envelope))
    return damaged(
        valid_utf8(begin, length) ? "not a record of `kcat -J`: topic, partition, offset or payload is missing"
                                  : "not valid UTF-8");
  if (!is_owned && (envelope.partition != lines.partition || envelope.topic != wanted)) {
    lines.others++;
    return;
  }
  lines.next_offset = envelope.offset + 1;
  if (envelope.payload.data() == nullptr) {
    add_reject(d, rows, envelope.offset, envelope.record_time, "no payload", begin, 0);
    return;
  }
  std::string_view payload;
  if (!reader.copy_payload(envelope, d.arena, payload)) {
    add_reject(
        d, rows, envelope.offset, envelope.record_time, "the payload has an invalid escape", begin, length);
    return;
  }
  const uint8_t *text = reinterpret_cast<const uint8_t *>(payload.data());
  bool valid = index_text(d, text, payload.size() + 1);
  decode_one(d, rows, text, text + payload.size(), !valid, envelope.offset, envelope.record_time);
}

void destroy(rd_decoder *d) {
  if (d->parsers) destroy_parsers(d->parsers);
  delete d;
}

}  // namespace
}  // namespace rd

using namespace rd;

extern "C" {

rd_decoder *rd_decoder_create(const rd_field_spec *specs, uint32_t count) {
  auto d = new rd_decoder();
  d->kernel = &scan_kernel();
  d->nodes.emplace_back();
  d->fields.resize(count);
  d->seen.assign(count, 0);
  for (uint32_t f = 0; f < count; f++) {
    Field &field = d->fields[f];
    field.spec = specs[f];
    if (field.spec.path_count == 0 || field.spec.path_count > path_depth_max) {
      destroy(d);
      return nullptr;
    }
    const rd_string &text = specs[f].default_string;
    if (text.length > 0) field.default_text.assign(reinterpret_cast<const char *>(text.data), text.length);
    if (field.spec.wants_hash)
      field.default_hash = rd_hash_bytes(
          reinterpret_cast<const uint8_t *>(field.default_text.data()), uint32_t(field.default_text.size()));
    if (field.spec.type == RD_FIELD_TIME_NUMBER) field.time_power = int(std::lround(std::log10(field.spec.scale)));
    uint32_t node = 0;
    for (uint32_t i = 0; i < field.spec.path_count; i++) {
      const rd_string &name = field.spec.path[i];
      if (i > 0) field.dotted += '.';
      field.dotted.append(reinterpret_cast<const char *>(name.data), name.length);
      uint32_t c = d->nodes[node].find(name.data, name.length);
      if (c == no_index) {
        c = uint32_t(d->nodes[node].children.size());
        d->nodes[node].children.emplace_back();
        d->nodes[node].children[c].key.assign(reinterpret_cast<const char *>(name.data), name.length);
      }
      if (i + 1 == field.spec.path_count) {
        Node::Child &child = d->nodes[node].children[c];
        field.next_same = child.field;
        child.field = f;
      } else if (d->nodes[node].children[c].node == no_index) {
        uint32_t next = uint32_t(d->nodes.size());
        d->nodes.emplace_back();
        d->nodes[node].children[c].node = next;
        node = next;
      } else {
        node = d->nodes[node].children[c].node;
      }
    }
    field.spec.path = nullptr;  // the caller's memory
    field.spec.default_string = {};
  }
  return d;
}

void rd_decoder_destroy(rd_decoder *decoder) {
  if (decoder) destroy(decoder);
}

void rd_decoder_force_simdjson(rd_decoder *decoder, int forced) { decoder->simdjson_only = forced != 0; }
uint64_t rd_decoder_scanned(const rd_decoder *decoder) { return decoder->scanned; }
uint64_t rd_decoder_parsed(const rd_decoder *decoder) { return decoder->parsed; }

size_t rd_decoder_reject_count(const rd_decoder *decoder) { return decoder->rejects.size(); }

rd_reject rd_decoder_reject(const rd_decoder *decoder, size_t index) {
  const Reject &reject = decoder->rejects[index];
  rd_reject result = reject.header;
  result.reason = reject.reason.data();
  result.reason_length = reject.reason.size();
  return result;
}

void rd_decode_lines(rd_decoder *decoder, rd_lines *lines, rd_rows *rows) {
  rd_decoder &d = *decoder;
  start_call(d);
  const uint8_t *p = lines->data + lines->position;
  const uint8_t *limit = lines->data + lines->length;
  // The index of the last call may speak of bytes that have moved since.
  lines->checked = std::min(lines->checked, lines->position);
  while (p < limit && rows->row_count < rows->capacity && d.rejects.size() < rows->capacity) {
    const uint8_t *next, *end;
    int64_t number = lines->next_line++;
    if (*p == '\n') {
      p++;
      continue;
    }
    if (lines->format == RD_LINES_ENVELOPE) {
      end = line_end(p, limit, next);
      if (end > p) decode_envelope(d, *lines, *rows, p, end);
      p = next;
      continue;
    }
    size_t position = size_t(p - lines->data);
    if (position >= lines->checked) {
      size_t stop = std::min(position + check_bytes, lines->length);
      auto newline =
          static_cast<const uint8_t *>(memchr(lines->data + stop - 1, '\n', lines->length - stop + 1));
      lines->checked = size_t(newline - lines->data) + 1;
      lines->checked_valid = index_text(d, p, lines->checked - position);
    }
    // The usual case: one walk over the record finds its end as well.
    if (lines->checked_valid && !d.simdjson_only) {
      const uint8_t *indexed = lines->data + lines->checked;
      p = d.kernel->scan_lines(d, *rows, p, indexed, lines->line_bytes_max, number);
      lines->next_line = number;
      if (p == indexed || *p == '\n' || rows->row_count == rows->capacity) continue;
      // The line at `p` is left to simdjson.
      lines->next_line++;
    }
    end = line_end(p, limit, next);
    size_t length = size_t(end - p);
    if (length > lines->line_bytes_max) {
      add_reject(d, *rows, number, INT64_MIN, too_long(lines->line_bytes_max), p, length);
    } else if (length > 0) {
      if (!lines->checked_valid && !valid_utf8(p, length)) {
        add_reject(d, *rows, number, INT64_MIN, "not valid UTF-8", p, length);
      } else if (!lines->checked_valid) {
        decode_one(d, *rows, p, end, false, number, INT64_MIN);
      } else {
        d.parsed++;
        std::string reason;
        if (parse_record(d, *rows, p, end, reason)) {
          take_row(*rows, number, INT64_MIN, p, length);
        } else {
          add_reject(d, *rows, number, INT64_MIN, std::move(reason), p, length);
        }
      }
    }
    p = next;
  }
  lines->position = size_t(p - lines->data);
}

void rd_decode_records(
    rd_decoder *decoder, const uint8_t *arena, size_t arena_length, const rd_record *records, size_t count,
    rd_rows *rows) {
  rd_decoder &d = *decoder;
  start_call(d);
  const uint8_t *limit = arena + arena_length;
  const uint8_t *indexed = nullptr;  // the end of the indexed stretch
  bool valid = false;
  for (size_t i = 0; i < count && rows->row_count < rows->capacity; i++) {
    const rd_record &record = records[i];
    if (record.data == nullptr) {
      add_reject(d, *rows, record.offset, record.record_time, "no payload", arena, 0);
      continue;
    }
    if (indexed == nullptr || record.data >= indexed) {
      indexed = record.data + record.length + 1;
      for (size_t next = i + 1; next < count; next++) {
        const rd_record &r = records[next];
        if (r.data == nullptr) continue;
        if (r.data < indexed || r.data + r.length >= limit || r.data + r.length >= record.data + check_bytes) break;
        indexed = r.data + r.length + 1;
      }
      // A character that is torn at a payload's end cannot be healed by the '\n' behind it: one check serves all.
      valid = index_text(d, record.data, size_t(indexed - record.data));
    }
    decode_one(d, *rows, record.data, record.data + record.length, !valid, record.offset, record.record_time);
  }
}

int rd_is_envelope(const uint8_t *line, size_t length) {
  EnvelopeReader reader;
  Envelope envelope;
  std::string padded(reinterpret_cast<const char *>(line), length);
  padded.append(RD_PADDING, ' ');
  return reader.read(reinterpret_cast<const uint8_t *>(padded.data()), length, envelope);
}

int rd_read_envelope_extra(const uint8_t *line, size_t length, rd_envelope_extra *out) {
  return read_envelope_extra(line, length, *out);
}

struct rd_survey {
  EnvelopeReader reader;
  std::set<std::pair<std::string, int32_t>> partitions;
};

rd_survey *rd_survey_create(void) { return new rd_survey(); }
void rd_survey_destroy(rd_survey *survey) { delete survey; }

int rd_survey_lines(rd_survey *survey, rd_lines *lines) {
  const uint8_t *p = lines->data + lines->position, *limit = lines->data + lines->length;
  const std::pair<std::string, int32_t> *last = nullptr;
  while (p < limit) {
    const uint8_t *next;
    const uint8_t *end = line_end(p, limit, next);
    Envelope envelope;
    bool is_known = envelope_owner(p, end, envelope.topic, envelope.partition) ||
                    (end > p && size_t(end - p) <= lines->line_bytes_max &&
                     survey->reader.read(p, size_t(end - p), envelope));
    if (is_known && !(last && last->second == envelope.partition && last->first == envelope.topic)) {
      last = &*survey->partitions.emplace(std::string(envelope.topic), envelope.partition).first;
      if (survey->partitions.size() > 10'000) return 0;
    }
    p = next;
  }
  lines->position = lines->length;
  return 1;
}

size_t rd_survey_count(const rd_survey *survey) { return survey->partitions.size(); }

void rd_survey_partition(const rd_survey *survey, size_t index, rd_string *topic, int32_t *partition) {
  auto it = survey->partitions.begin();
  std::advance(it, ptrdiff_t(index));
  *topic = {reinterpret_cast<const uint8_t *>(it->first.data()), uint32_t(it->first.size()), 0};
  *partition = it->second;
}

}  // extern "C"
