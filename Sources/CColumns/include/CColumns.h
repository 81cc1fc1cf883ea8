// What Swift and the C++ decoder share: the memory layout of a column's values, and the hash of a string.
#ifndef RULESD_CCOLUMNS_H
#define RULESD_CCOLUMNS_H

#include <stdint.h>
#include <string.h>

// A string in a column: bytes that somebody else owns (the batch's payload arena, a group table's key store),
// and their hash where `rd_hash_bytes` has been asked for it, else 0.
typedef struct {
  const uint8_t *data;
  uint32_t length;
  uint32_t hash;
} rd_string;

static inline uint64_t rd_load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline uint64_t rd_load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

static inline uint64_t rd_mix(uint64_t a, uint64_t b) {
  __uint128_t product = (__uint128_t)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

// 64-bit hash of bytes, the same on every machine and in every run (output depends on it through HyperLogLog).
// The construction is wyhash's: 128-bit multiply and fold, two words a step. Reads only data[0..<length].
static inline uint64_t rd_hash64(const uint8_t *data, uint32_t length) {
  const uint64_t s0 = 0xa0761d6478bd642full, s1 = 0xe7037ed1a0b428dbull, s2 = 0x8ebc6af09c88c6e3ull;
  uint64_t a, b, seed = s0;
  if (length <= 16) {
    if (length >= 8) {
      a = rd_load64(data);
      b = rd_load64(data + length - 8);
    } else if (length >= 4) {
      a = rd_load32(data);
      b = rd_load32(data + length - 4);
    } else if (length > 0) {
      a = ((uint64_t)data[0] << 16) | ((uint64_t)data[length >> 1] << 8) | data[length - 1];
      b = 0;
    } else {
      a = b = 0;
    }
  } else {
    uint32_t left = length;
    const uint8_t *p = data;
    while (left > 16) {
      seed = rd_mix(rd_load64(p) ^ s1, rd_load64(p + 8) ^ seed);
      p += 16;
      left -= 16;
    }
    a = rd_load64(p + left - 16);
    b = rd_load64(p + left - 8);
  }
  return rd_mix(s2 ^ length, rd_mix(a ^ s1, b ^ seed));
}

// The hash kept in `rd_string.hash`; never 0, so that 0 can mean "not computed".
static inline uint32_t rd_hash_bytes(const uint8_t *data, uint32_t length) {
  uint64_t hash = rd_hash64(data, length);
  uint32_t folded = (uint32_t)(hash ^ (hash >> 32));
  return folded ? folded : 1;
}

// Mixes a fixed-width value (an int, the bits of a double) into a 64-bit hash.
static inline uint64_t rd_hash_word(uint64_t word) {
  return rd_mix(word ^ 0xa0761d6478bd642full, word ^ 0xe7037ed1a0b428dbull ^ 0x9e3779b97f4a7c15ull);
}

// Equality of two strings; short ones, which keys are, without a call: two overlapping words cover 8 to 16 bytes.
static inline int rd_string_equal(rd_string a, rd_string b) {
  if (a.length != b.length) return 0;
  uint32_t n = a.length;
  if (n > 16) return memcmp(a.data, b.data, n) == 0;
  if (n >= 8)
    return ((rd_load64(a.data) ^ rd_load64(b.data)) | (rd_load64(a.data + n - 8) ^ rd_load64(b.data + n - 8))) == 0;
  if (n >= 4)
    return ((rd_load32(a.data) ^ rd_load32(b.data)) | (rd_load32(a.data + n - 4) ^ rd_load32(b.data + n - 4))) == 0;
  for (uint32_t i = 0; i < n; i++)
    if (a.data[i] != b.data[i]) return 0;
  return 1;
}

// How many bytes two strings begin with alike.
static inline uint32_t rd_shared_prefix(rd_string a, rd_string b) {
  uint32_t n = a.length < b.length ? a.length : b.length, i = 0;
  while (i < n && a.data[i] == b.data[i]) i++;
  return i;
}

// The eight bytes from `from` on, the first in the highest place, zeros behind the end: words in the order of strings.
static inline uint64_t rd_lead(rd_string s, uint32_t from) {
  if (s.length >= from + 8) return __builtin_bswap64(rd_load64(s.data + from));
  uint64_t word = 0;
  for (uint32_t i = from; i < s.length; i++) word |= (uint64_t)s.data[i] << (56 - 8 * (i - from));
  return word;
}

// Whether a JSON string can hold the bytes as they are: no control character, quote or backslash.
static inline int rd_is_plain(const uint8_t *data, size_t n) {
  const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t word = rd_load64(data + i);
    uint64_t quote = word ^ (ones * '"'), slash = word ^ (ones * '\\');
    // A byte below n, or zero, borrows from the byte's highest bit (Mycroft 1987); bytes from 0x80 on are left out.
    uint64_t found = ((word - ones * 0x20) & ~word) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash);
    if (found & highs) return 0;
  }
  for (; i < n; i++)
    if (data[i] < 0x20 || data[i] == '"' || data[i] == '\\') return 0;
  return 1;
}

#endif
