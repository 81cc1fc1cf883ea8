// How fast one core decodes JSON lines into columns: the scanner, and simdjson alone, in the same run.
//
//   clang++ -std=c++17 -O3 -ISources/CDecode/include -ISources/CColumns/include \\
//     bench/decoder/decoder_bench.cpp Sources/CDecode/*.cpp -lsimdjson -o .build/decoder_bench && .build/decoder_bench
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "CDecode.h"

namespace {

constexpr int events = 300'000;
constexpr uint32_t rows_max = 4096;

rd_string view(const char *text) {
  return {reinterpret_cast<const uint8_t *>(text), uint32_t(strlen(text)), 0};
}

// Ten members, 250 bytes. With `blanks`, as Python's json.dumps writes them.
std::string make_events(bool blanks) {
  const char *services[] = {"search-api", "ranker", "indexer", "gateway"};
  const char *regions[] = {"eu-west-1", "us-east-1", "ap-south-1"};
  std::string data;
  srand(1);
  for (int i = 0; i < events; i++) {
    char line[512];
    snprintf(
        line, sizeof line,
        "{\"ts\":%lld,\"service\":\"%s\",\"region\":\"%s\",\"status\":%d,\"latency_ms\":%d.%d,"
        "\"trace_id\":\"%08x%08x%08x%08x\",\"host\":\"node-%02d.internal\",\"path\":\"/v1/search/query\","
        "\"relevance\":0.%03d,\"user_agent\":\"Mozilla/5.0 (X11; Linux)\"}",
        1700000000000LL + i, services[rand() % 4], regions[rand() % 3], rand() % 50 ? 200 : 500, rand() % 900,
        rand() % 10, rand(), rand(), rand(), rand(), rand() % 40, rand() % 1000);
    for (const char *c = line; *c; c++) {
      data += *c;
      if (blanks && ((*c == ':' && c[-1] == '"') || (*c == ',' && c[1] == '"'))) data += ' ';
    }
    data += '\n';
  }
  return data;
}

void measure(const char *name, const std::string &padded, size_t length, const char *const names[5], bool forced) {
  const uint8_t types[5] = {
      RD_FIELD_TIME_NUMBER, RD_FIELD_STRING, RD_FIELD_STRING, RD_FIELD_INT, RD_FIELD_FLOAT};
  rd_string paths[5];
  rd_field_spec fields[5] = {};
  std::vector<uint8_t> memory[5];
  rd_column columns[5];
  for (int i = 0; i < 5; i++) {
    paths[i] = view(names[i]);
    fields[i].path = &paths[i];
    fields[i].path_count = 1;
    fields[i].type = types[i];
    fields[i].absence = RD_ABSENT_REJECT;
    fields[i].scale = i == 0 ? 1e6 : 1;
    fields[i].wants_hash = types[i] == RD_FIELD_STRING;
    memory[i].resize(rows_max * sizeof(rd_string) + 64);
    columns[i] = {memory[i].data(), nullptr, 0};
  }
  std::vector<int64_t> offsets(rows_max), times(rows_max);
  std::vector<rd_string> payloads(rows_max);
  double best = 0;
  uint64_t scanned = 0;
  for (int run = 0; run < 5; run++) {
    rd_decoder *decoder = rd_decoder_create(fields, 5);
    rd_decoder_force_simdjson(decoder, forced);
    auto start = std::chrono::steady_clock::now();
    size_t rows = 0;
    for (size_t at = 0; at < length;) {
      size_t end = at + (1 << 20) < length ? at + (1 << 20) : length;
      while (padded[end - 1] != '\n') end--;
      rd_lines lines = {};
      lines.data = reinterpret_cast<const uint8_t *>(padded.data()) + at;
      lines.length = end - at;
      lines.line_bytes_max = 1 << 20;
      while (lines.position < lines.length) {
        rd_rows out = {columns, offsets.data(), times.data(), payloads.data(), rows_max, 0};
        rd_decode_lines(decoder, &lines, &out);
        rows += out.row_count;
      }
      at = end;
    }
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (rows != events) {
      fprintf(stderr, "%zu rows instead of %d\n", rows, events);
      exit(1);
    }
    double rate = double(rows) / seconds.count() / 1e6;
    if (rate > best) best = rate;
    scanned = rd_decoder_scanned(decoder);
    rd_decoder_destroy(decoder);
  }
  printf("%-44s %6.2f M rows/s  (%3.0f %% by the scanner)\n", name, best, 100.0 * double(scanned) / events);
}

}  // namespace

int main() {
  const char *const early[5] = {"ts", "service", "region", "status", "latency_ms"};
  const char *const late[5] = {"ts", "service", "path", "status", "relevance"};
  for (bool blanks : {false, true}) {
    std::string data = make_events(blanks);
    size_t length = data.size();
    data.append(RD_PADDING, '\0');
    printf("%zu bytes an event%s\n", length / events, blanks ? ", blanks behind colons and commas" : "");
    measure("scanner, 5 of 10, the last is the fifth", data, length, early, false);
    measure("simdjson, 5 of 10, the last is the fifth", data, length, early, true);
    measure("scanner, 5 of 10, the last is the ninth", data, length, late, false);
    measure("simdjson, 5 of 10, the last is the ninth", data, length, late, true);
  }
}
