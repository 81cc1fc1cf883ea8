// The second path: simdjson On-Demand, for whatever the scanner leaves undecided. It gives the verdict and
// the reason.
#include <simdjson.h>

#include "decoder.h"

namespace rd {

using namespace simdjson;

struct Parsers {
  ondemand::parser parser;
  EnvelopeReader envelope;
};

struct EnvelopeParser {
  ondemand::parser parser;
};

namespace {

Parsers &parsers(rd_decoder &d) {
  if (!d.parsers) d.parsers = new Parsers();
  return *d.parsers;
}

std::string_view trim_end(std::string_view s) {
  while (!s.empty() && uint8_t(s.back()) <= ' ') s.remove_suffix(1);
  return s;
}

// Cuts at a character, not in it.
std::string_view cut(std::string_view s, size_t bytes_max) {
  if (s.size() <= bytes_max) return s;
  size_t end = bytes_max;
  while (end > 0 && (uint8_t(s[end]) & 0xC0) == 0x80) end--;
  return s.substr(0, end);
}

std::string quoted(std::string_view token) {
  if (token.empty()) return "nothing";
  if (token[0] == '{') return "an object";
  if (token[0] == '[') return "an array";
  std::string_view shown = cut(token, 64);
  return std::string(shown) + (shown.size() < token.size() ? "…" : "");
}

const char *expected(uint8_t type) {
  switch (type) {
    case RD_FIELD_BOOL: return "true or false";
    case RD_FIELD_INT: return "an int";
    case RD_FIELD_STRING: return "a string";
    case RD_FIELD_TIME_TEXT: return "an RFC 3339 time";
    default: return "a number";
  }
}

std::string syntax_error(error_code error) {
  switch (error) {
    case UTF8_ERROR: return "not valid UTF-8";
    case EMPTY: return "empty";
    default: return std::string("invalid JSON: ") + error_message(error);
  }
}

class Walk {
 public:
  Walk(rd_decoder &d, rd_rows &rows, ondemand::parser &parser, std::string &reason)
      : d(d), rows(rows), parser(parser), reason(reason), row(rows.row_count) {}

  // False: `reason` is set. Stops when nothing remains.
  bool object(Node &node, ondemand::object object) {
    for (auto item : object) {
      ondemand::field field;
      if (auto error = std::move(item).get(field)) return fail(error);
      // The key's raw bytes lie behind its quote; stage 1 has seen that it is closed.
      const uint8_t *key = reinterpret_cast<const uint8_t *>(field.key().raw());
      size_t length = 0;
      bool escaped = false;
      for (; key[length] != '"'; length++) {
        if (key[length] == '\\') {
          escaped = true;
          length++;
        }
      }
      uint32_t child;
      if (escaped) {
        std::string_view text;
        if (auto error = field.unescaped_key().get(text)) return fail(error);
        child = node.find(reinterpret_cast<const uint8_t *>(text.data()), text.size());
      } else {
        child = node.find(key, length);
      }
      if (child == no_index) continue;
      if (!member(node.children[child], field.value())) return false;
      if (remaining == 0) return true;
    }
    return true;
  }

  bool member(const Node::Child &child, ondemand::value value) {
    std::string_view token = trim_end(value.raw_json_token());
    bool is_null = token == "null";
    for (uint32_t f = child.field; f != no_index; f = d.fields[f].next_same) {
      if (d.seen[f] == d.epoch) continue;
      d.seen[f] = d.epoch;
      remaining--;
      if (is_null) {
        if (!store_absent(d, rows, f, row)) return reject(f, "is null");
      } else if (!leaf(f, value, token)) {
        return false;
      }
    }
    if (child.node == no_index || remaining == 0) return true;
    if (entered[child.node]) return true;
    entered[child.node] = true;
    if (is_null) return true;
    if (token.empty() || token[0] != '{') {
      return reject(
          first_field(child.node), "expected an object at `" + child.key + "`, found " + quoted(token));
    }
    ondemand::object inner;
    if (auto error = value.get_object().get(inner)) return fail(error);
    return object(d.nodes[child.node], inner);
  }

  bool leaf(uint32_t f, ondemand::value &value, std::string_view token) {
    const Field &field = d.fields[f];
    uint8_t type = field.spec.type;
    bool is_string = !token.empty() && token[0] == '"';
    Parsed parsed = Parsed::wrong_type;
    if (is_string && (type == RD_FIELD_STRING || type == RD_FIELD_TIME_TEXT)) {
      std::string_view text = token.substr(1, token.size() - 2);
      if (text.find('\\') != std::string_view::npos) {
        size_t room = text.size() + SIMDJSON_PADDING;
        uint8_t *start = d.arena.allocate(room);
        uint8_t *end = start;
        ondemand::raw_json_string raw;
        if (value.get_raw_json_string().get(raw) || parser.unescape(raw, end).get(text))
          return reject(f, "has an invalid escape in " + quoted(token));
        d.arena.shrink(room - size_t(end - start));
      }
      const uint8_t *bytes = reinterpret_cast<const uint8_t *>(text.data());
      if (type == RD_FIELD_STRING) {
        store_string(d, rows, f, row, bytes, text.size());
        parsed = Parsed::ok;
      } else {
        parsed = store_time_text(d, rows, f, row, bytes, bytes + text.size());
      }
    } else if (!is_string && type != RD_FIELD_STRING) {
      const uint8_t *bytes = reinterpret_cast<const uint8_t *>(token.data());
      parsed = store_scalar(d, rows, f, row, bytes, bytes + token.size());
    }
    switch (parsed) {
      case Parsed::ok:
        store_present(d, rows, f, row);
        return true;
      case Parsed::wrong_type:
        return reject(f, std::string("expected ") + expected(type) + ", found " + quoted(token));
      case Parsed::out_of_range:
        if (type == RD_FIELD_INT) return reject(f, "does not fit 64 bits: " + quoted(token));
        if (type == RD_FIELD_FLOAT) return reject(f, "is too large: " + quoted(token));
        return reject(f, "timestamp out of range: " + quoted(token));
    }
    return false;
  }

  uint32_t first_field(uint32_t node) const {
    const Node::Child &child = d.nodes[node].children[0];
    return child.field != no_index ? child.field : first_field(child.node);
  }

  bool reject(uint32_t f, const std::string &what) {
    const char *separator = what.compare(0, 3, "is ") == 0 || what.compare(0, 4, "has ") == 0 ||
                                    what.compare(0, 5, "does ") == 0
                                ? "` "
                                : "`: ";
    reason = "field `" + d.fields[f].dotted + separator + what;
    return false;
  }

  bool fail(error_code error) {
    reason = syntax_error(error);
    return false;
  }

  rd_decoder &d;
  rd_rows &rows;
  ondemand::parser &parser;
  std::string &reason;
  uint32_t row;
  size_t remaining = 0;
  std::vector<bool> entered;
};

}  // namespace

bool parse_record(
    rd_decoder &d, rd_rows &rows, const uint8_t *begin, const uint8_t *end, std::string &reason) {
  ondemand::parser &parser = parsers(d).parser;
  Walk walk(d, rows, parser, reason);
  size_t length = size_t(end - begin);
  ondemand::document document;
  if (auto error = parser.iterate(padded_string_view(begin, length, length + SIMDJSON_PADDING)).get(document))
    return walk.fail(error);
  d.epoch++;
  walk.remaining = d.fields.size();
  walk.entered.assign(d.nodes.size(), false);
  const uint8_t *first = begin;
  while (first < end && (*first == ' ' || *first == '\t' || *first == '\n' || *first == '\r')) first++;
  if (first < end && *first != '{') {
    size_t shown = size_t(end - first) < 64 ? size_t(end - first) : 80;
    std::string_view text = trim_end(std::string_view(reinterpret_cast<const char *>(first), shown));
    reason = "expected a JSON object, found " + quoted(text);
    return false;
  }
  ondemand::object root;
  if (auto error = document.get_object().get(root)) return walk.fail(error);
  if (walk.remaining == 0) return true;
  if (!walk.object(d.nodes[0], root)) return false;
  if (walk.remaining == 0) return true;
  const char *location;
  if (document.current_location().get(location) != OUT_OF_BOUNDS) {
    reason = "invalid JSON: something follows the object";
    return false;
  }
  for (uint32_t f = 0; f < d.fields.size(); f++) {
    if (d.seen[f] != d.epoch && !store_absent(d, rows, f, rows.row_count))
      return walk.reject(f, "is missing");
  }
  return true;
}

void destroy_parsers(Parsers *parsers) { delete parsers; }
EnvelopeReader &envelope_reader(rd_decoder &d) { return parsers(d).envelope; }
bool valid_utf8(const uint8_t *data, size_t length) {
  return validate_utf8(reinterpret_cast<const char *>(data), length);
}

EnvelopeReader::EnvelopeReader() : parser(std::make_unique<EnvelopeParser>()) {}
EnvelopeReader::~EnvelopeReader() = default;

bool EnvelopeReader::read(const uint8_t *line, size_t length, Envelope &out) {
  ondemand::document document;
  ondemand::object object;
  if (parser->parser.iterate(padded_string_view(line, length, length + SIMDJSON_PADDING)).get(document) ||
      document.get_object().get(object))
    return false;
  bool has_topic = false, has_partition = false, has_offset = false, has_payload = false;
  out = Envelope();
  for (auto item : object) {
    ondemand::field field;
    if (std::move(item).get(field)) return false;
    ondemand::raw_json_string key = field.key();
    std::string_view token = trim_end(field.value().raw_json_token());
    if (key == "topic") {
      // A topic's name has letters, digits, '.', '_' and '-' only: never an escape.
      if (token.size() < 2 || token[0] != '"') return false;
      out.topic = token.substr(1, token.size() - 2);
      has_topic = true;
    } else if (key == "partition") {
      int64_t partition;
      if (field.value().get_int64().get(partition) || partition < 0 || partition > INT32_MAX) return false;
      out.partition = int32_t(partition);
      has_partition = true;
    } else if (key == "offset") {
      if (field.value().get_int64().get(out.offset)) return false;
      if (out.offset < 0 || out.offset == INT64_MAX) return false;
      has_offset = true;
    } else if (key == "ts") {
      int64_t millis;
      if (token == "null") continue;
      if (field.value().get_int64().get(millis)) return false;
      if (millis < 0 || __builtin_mul_overflow(millis, int64_t(1'000'000), &out.record_time))
        out.record_time = INT64_MIN;
    } else if (key == "payload") {
      has_payload = true;
      out.payload_is_string = !token.empty() && token[0] == '"';
      if (token == "null") {
        out.payload = {};
      } else if (!token.empty() && token[0] == '{') {
        ondemand::object inner;
        if (field.value().get_object().get(inner) || inner.raw_json().get(out.payload)) return false;
      } else if (!token.empty() && token[0] == '[') {
        ondemand::array inner;
        if (field.value().get_array().get(inner) || inner.raw_json().get(out.payload)) return false;
      } else {
        out.payload = token;
      }
    }
  }
  return has_topic && has_partition && has_offset && has_payload;
}

static rd_string text_of(const std::string &text) {
  return {reinterpret_cast<const uint8_t *>(text.data()), uint32_t(text.size()), 0};
}

bool read_envelope_extra(const uint8_t *line, size_t length, rd_envelope_extra &out) {
  thread_local ondemand::parser parser;
  thread_local std::string topic, key, replays;
  ondemand::document document;
  ondemand::object object;
  if (parser.iterate(padded_string_view(line, length, length + SIMDJSON_PADDING)).get(document) ||
      document.get_object().get(object))
    return false;
  out = rd_envelope_extra();
  replays.clear();
  bool has_topic = false, has_partition = false, has_offset = false;
  for (auto item : object) {
    ondemand::field field;
    if (std::move(item).get(field)) return false;
    ondemand::raw_json_string name = field.key();
    if (name == "topic") {
      std::string_view text;
      if (field.value().get_string().get(text)) return false;
      topic.assign(text);
      has_topic = true;
    } else if (name == "partition") {
      int64_t number;
      if (field.value().get_int64().get(number) || number < 0 || number > INT32_MAX) return false;
      out.partition = int32_t(number);
      has_partition = true;
    } else if (name == "offset") {
      if (field.value().get_int64().get(out.offset)) return false;
      has_offset = true;
    } else if (name == "key") {
      std::string_view text;
      if (field.value().is_null()) continue;
      // A key that is no text, as with a deserializer, is kept as the JSON that it is.
      if (field.value().get_string().get(text)) text = trim_end(field.value().raw_json_token());
      key.assign(text);
      out.has_key = 1;
    } else if (name == "headers") {
      ondemand::array headers;
      if (field.value().get_array().get(headers)) continue;
      bool is_name = true, is_ours = false;
      for (auto entry : headers) {
        std::string_view text;
        ondemand::value value;
        if (entry.get(value)) return false;
        bool is_text = value.get_string().get(text) == SUCCESS;
        if (is_name) {
          is_ours = is_text && text == "rulesd-replays";
        } else if (is_ours && is_text) {
          replays.assign(text);
        }
        is_name = !is_name;
      }
    }
  }
  out.topic = text_of(topic);
  if (out.has_key) out.key = text_of(key);
  out.replays = text_of(replays);
  return has_topic && has_partition && has_offset;
}

bool EnvelopeReader::copy_payload(const Envelope &envelope, Arena &arena, std::string_view &payload) {
  size_t room = envelope.payload.size() + 1 + RD_PADDING + SIMDJSON_PADDING;
  uint8_t *start = arena.allocate(room);
  uint8_t *end = start;
  if (envelope.payload_is_string) {
    // raw_json_string wants the byte behind the quote.
    ondemand::raw_json_string raw(reinterpret_cast<const uint8_t *>(envelope.payload.data()) + 1);
    std::string_view text;
    if (parser->parser.unescape(raw, end).get(text)) {
      arena.shrink(room);
      return false;
    }
  } else {
    memcpy(start, envelope.payload.data(), envelope.payload.size());
    end = start + envelope.payload.size();
  }
  *end = '\n';
  payload = std::string_view(reinterpret_cast<const char *>(start), size_t(end - start));
  return true;
}

}  // namespace rd
