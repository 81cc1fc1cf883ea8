// JSON records into columns: the product's hottest loop, behind a C interface that Swift calls once a batch.
//
// Two paths give one verdict. A scanner of our own (`scan_kernel.h`) walks the keys in the order it has learned, skips what
// nobody needs and stops behind the last needed member. Whatever it does not take at sight (escapes in a needed
// string, odd numbers, any error) goes to simdjson On-Demand (`ondemand.cpp`), which decides and words the reason.
//
// What is checked of a record: all of it for UTF-8, for closed strings, for control characters in strings and for the
// `}` at its end; the grammar only as far as the last needed member. A record in which some member is not found is
// walked to its end.
#ifndef RULESD_CDECODE_H
#define RULESD_CDECODE_H

#include <stddef.h>
#include <stdint.h>

#include "CColumns.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes that must be readable behind every payload and every buffer handed in.
enum { RD_PADDING = 64 };

enum rd_field_type {
  RD_FIELD_BOOL,         // uint8_t 0 or 1
  RD_FIELD_INT,          // int64_t
  RD_FIELD_FLOAT,        // double, times `scale`
  RD_FIELD_STRING,       // rd_string
  RD_FIELD_TIME_NUMBER,  // int64_t nanoseconds; the number counts units of `scale` nanoseconds, a power of ten
  RD_FIELD_TIME_TEXT,    // int64_t nanoseconds, from RFC 3339 text
};

enum rd_absence { RD_ABSENT_NULL, RD_ABSENT_DEFAULT, RD_ABSENT_REJECT };

// A needed member. Texts are copied by `rd_decoder_create`.
typedef struct {
  const rd_string *path;  // member names from the root
  uint32_t path_count;
  uint8_t type;
  uint8_t absence;
  uint8_t wants_hash;
  double scale;
  int64_t default_int;  // also for bool
  double default_double;
  rd_string default_string;
} rd_field_spec;

typedef struct rd_decoder rd_decoder;

// Returns NULL when a path is empty or deeper than 32 members.
rd_decoder *rd_decoder_create(const rd_field_spec *fields, uint32_t count);
void rd_decoder_destroy(rd_decoder *decoder);

// For tests and measurements: sends every record to simdjson.
void rd_decoder_force_simdjson(rd_decoder *decoder, int forced);
// For tests and measurements: which of the scanner's variants decoders use that this thread makes from now on. Returns 0,
// and changes nothing, when this processor cannot run it.
enum rd_scan_variant { RD_SCAN_BEST, RD_SCAN_PORTABLE, RD_SCAN_AVX2, RD_SCAN_AVX512 };
int rd_use_scan_variant(int variant);
// Records that each path has decided since the decoder was made.
uint64_t rd_decoder_scanned(const rd_decoder *decoder);
uint64_t rd_decoder_parsed(const rd_decoder *decoder);

typedef struct {
  void *values;
  uint8_t *validity;  // written for fields with RD_ABSENT_NULL only
  uint8_t has_nulls;  // out
} rd_column;

// Where rows go. Strings and payloads point into the input or into the decoder's arena; both stay as they are until
// the next call.
typedef struct {
  rd_column *columns;
  int64_t *offsets;
  int64_t *record_times;
  rd_string *payloads;
  uint32_t capacity;
  uint32_t row_count;  // in and out
} rd_rows;

typedef struct {
  uint32_t rows_before;
  int64_t offset;
  int64_t record_time;
  const char *reason;  // UTF-8, reason_length bytes
  size_t reason_length;
  const uint8_t *payload;
  size_t payload_length;
} rd_reject;

// Rejects of the last call; valid until the next.
size_t rd_decoder_reject_count(const rd_decoder *decoder);
rd_reject rd_decoder_reject(const rd_decoder *decoder, size_t index);

enum rd_line_format { RD_LINES_BARE, RD_LINES_ENVELOPE };

// Whole lines in a buffer, and how far they have been read. `data[length - 1]` is '\n', RD_PADDING bytes are readable
// behind it. When the buffer is refilled, `position` and `checked` start at 0 again.
typedef struct {
  const uint8_t *data;
  size_t length;
  size_t position;
  size_t checked;        // UTF-8 has been checked up to here
  uint8_t checked_valid;  // what that check said of the last block
  uint8_t format;
  // Envelopes only: which (topic, partition) is wanted, and whether lines that are no envelope are reported here.
  uint8_t takes_strays;
  int32_t partition;
  rd_string topic;
  size_t line_bytes_max;
  int64_t next_line;    // number of the line at `position`
  int64_t next_offset;  // envelopes: one behind the last offset seen
  uint64_t others;      // envelopes: lines of other partitions that were passed over
} rd_lines;

// Decodes lines until `rows` is full, as many records were rejected, or the lines are at their end. Empty lines count
// but make no record; "\r\n" is a line end. Clears rejects and arena first.
void rd_decode_lines(rd_decoder *decoder, rd_lines *lines, rd_rows *rows);

typedef struct {
  const uint8_t *data;  // NULL: no payload
  size_t length;
  int64_t offset;
  int64_t record_time;
} rd_record;

// Decodes messages whose payloads lie one behind the other in `arena`, each followed by '\n', RD_PADDING readable bytes
// behind the last. `count` must not exceed what `rows` has left.
void rd_decode_records(
    rd_decoder *decoder, const uint8_t *arena, size_t arena_length, const rd_record *records, size_t count,
    rd_rows *rows);

// Whether a line looks like what `kcat -J` writes: an object with topic, partition, offset and payload.
int rd_is_envelope(const uint8_t *line, size_t length);

// What a line of `kcat -J` says beside the payload. Texts stay as they are until this thread's next call.
typedef struct {
  rd_string topic;
  int32_t partition;
  int64_t offset;
  rd_string key;
  uint8_t has_key;
  rd_string replays;  // value of the last header `rulesd-replays`; empty for none
} rd_envelope_extra;

// Returns 0 when the line is no envelope. RD_PADDING bytes are readable behind it.
int rd_read_envelope_extra(const uint8_t *line, size_t length, rd_envelope_extra *out);

// Collects the partitions that occur in a recording of envelopes.
typedef struct rd_survey rd_survey;
rd_survey *rd_survey_create(void);
void rd_survey_destroy(rd_survey *survey);
// Reads all lines. Returns 0 when more than 10,000 partitions have been met.
int rd_survey_lines(rd_survey *survey, rd_lines *lines);
size_t rd_survey_count(const rd_survey *survey);
// Topics live as long as the survey. In the order of topic, partition.
void rd_survey_partition(const rd_survey *survey, size_t index, rd_string *topic, int32_t *partition);

#ifdef __cplusplus
}
#endif
#endif
