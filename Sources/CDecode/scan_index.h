// The first pass: where the quotes and the control characters are. Part of scan_kernel.h, compiled for each kind of
// processor.

namespace {

// A bit for each of 64 bytes.
struct Block {
  uint64_t quotes, backslashes, controls;
};

#if RD_SIMD == 3
inline Block look(const uint8_t *p, __m512i &all) {
  __m512i v = _mm512_loadu_si512(p);
  all = _mm512_or_si512(all, v);
  return {_mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('"')), _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('\\')),
          _mm512_cmplt_epu8_mask(v, _mm512_set1_epi8(0x20))};
}
using All = __m512i;
inline All nothing() { return _mm512_setzero_si512(); }
inline bool has_high_bit(All all) { return _mm512_movepi8_mask(all) != 0; }
#elif RD_SIMD == 2
using All = __m256i;
inline All nothing() { return _mm256_setzero_si256(); }
inline bool has_high_bit(All all) { return _mm256_movemask_epi8(all) != 0; }
inline uint64_t join(__m256i low, __m256i high) {
  return uint32_t(_mm256_movemask_epi8(low)) | uint64_t(uint32_t(_mm256_movemask_epi8(high))) << 32;
}
inline Block look(const uint8_t *p, All &all) {
  const __m256i quote = _mm256_set1_epi8('"'), backslash = _mm256_set1_epi8('\\'), control = _mm256_set1_epi8(0x1f);
  __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p + 32));
  all = _mm256_or_si256(all, _mm256_or_si256(a, b));
  return {join(_mm256_cmpeq_epi8(a, quote), _mm256_cmpeq_epi8(b, quote)),
          join(_mm256_cmpeq_epi8(a, backslash), _mm256_cmpeq_epi8(b, backslash)),
          join(_mm256_cmpeq_epi8(_mm256_min_epu8(a, control), a), _mm256_cmpeq_epi8(_mm256_min_epu8(b, control), b))};
}
#elif RD_SIMD == 1
using All = __m128i;
inline All nothing() { return _mm_setzero_si128(); }
inline bool has_high_bit(All all) { return _mm_movemask_epi8(all) != 0; }
inline Block look(const uint8_t *p, All &all) {
  const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
  Block block{};
  for (int i = 0; i < 4; i++) {
    __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + 16 * i));
    all = _mm_or_si128(all, v);
    block.quotes |= uint64_t(unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(v, quote)))) << (16 * i);
    block.backslashes |= uint64_t(unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(v, backslash)))) << (16 * i);
    block.controls |= uint64_t(unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, control), v)))) << (16 * i);
  }
  return block;
}
#else
using All = uint64_t;
inline All nothing() { return 0; }
inline bool has_high_bit(All all) { return (all & 0x8080808080808080ull) != 0; }
// A bit for each zero byte among eight.
inline uint64_t zero_bytes(uint64_t v) {
  const uint64_t low = 0x7f7f7f7f7f7f7f7full;
  uint64_t zero = ~(((v & low) + low) | v | low);
  return ((zero >> 7) * 0x0102040810204080ull) >> 56;
}
inline Block look(const uint8_t *p, All &all) {
  const uint64_t ones = 0x0101010101010101ull;
  Block block{};
  for (int i = 0; i < 8; i++) {
    uint64_t v = rd_load64(p + 8 * i);
    all |= v;
    block.quotes |= zero_bytes(v ^ (ones * '"')) << (8 * i);
    block.backslashes |= zero_bytes(v ^ (ones * '\\')) << (8 * i);
    block.controls |= zero_bytes(v & (ones * 0xe0)) << (8 * i);
  }
  return block;
}
#endif

// Which bytes stand behind an odd number of backslashes (Langdale and Lemire 2019, section 3.1.1).
inline uint64_t escaped_bytes(uint64_t backslashes, uint64_t &carry) {
  const uint64_t even = 0x5555555555555555ull;
  backslashes &= ~carry;
  uint64_t follows = backslashes << 1 | carry;
  uint64_t odd_starts = backslashes & ~even & ~follows;
  uint64_t even_series;
  carry = __builtin_add_overflow(odd_starts, backslashes, &even_series);
  return (even ^ (even_series << 1)) & follows;
}

// Writes the offsets of the bits, and some entries more than that. Returns their number.
inline size_t write_places(uint32_t *out, uint64_t bits, uint32_t offset) {
  size_t count = size_t(__builtin_popcountll(bits));
#if RD_SIMD == 3
  __m512i at = _mm512_maskz_compress_epi8(bits, _mm512_load_si512(places.bytes));
  __m512i start = _mm512_set1_epi32(int(offset));
  _mm512_storeu_si512(out, _mm512_add_epi32(start, _mm512_cvtepu8_epi32(_mm512_castsi512_si128(at))));
  if (__builtin_expect(count > 16, 0)) {
    _mm512_storeu_si512(out + 16, _mm512_add_epi32(start, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(at, 1))));
    _mm512_storeu_si512(out + 32, _mm512_add_epi32(start, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(at, 2))));
    _mm512_storeu_si512(out + 48, _mm512_add_epi32(start, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(at, 3))));
  }
#else
  // Most blocks have fewer than 13: a fixed number of steps is cheaper than a loop whose end is a guess. Once no bit is
  // left the entries are of no use; the bit set at the top only keeps the count of trailing zeros defined.
  const uint64_t top = uint64_t(1) << 63;
  uint64_t left = bits;
  for (int i = 0; i < 12; i++) {
    out[i] = offset + uint32_t(__builtin_ctzll(left | top));
    left &= left - 1;
  }
  if (__builtin_expect(count > 12, 0)) {
    for (size_t i = 12; i < count; i++) {
      out[i] = offset + uint32_t(__builtin_ctzll(left));
      left &= left - 1;
    }
  }
#endif
  return count;
}

void build_index(Index &index, const uint8_t *begin, size_t length) {
  index.base = begin;
  index.quote = index.stop = index.quote_count = 0;
  index.is_ascii = index.has_backslash = false;
  // Offsets are of 32 bits; simdjson takes no longer document either.
  size_t covered = length > size_t(INT32_MAX) ? 0 : length;
  index.reserve(covered);
  uint32_t *quotes = index.quotes.get(), *stops = index.stops.get();
  All all = nothing();
  uint64_t carry = 0, any_backslash = 0;
  size_t at = 0;
  auto take_block = [&](Block block) __attribute__((always_inline)) {
    if (__builtin_expect((block.backslashes | carry) != 0, 0)) {
      any_backslash |= block.backslashes;
      block.quotes &= ~escaped_bytes(block.backslashes, carry);
    }
    quotes += write_places(quotes, block.quotes, uint32_t(at));
    // There is one in every few blocks: no guess about which.
    *stops = uint32_t(at) + uint32_t(__builtin_ctzll(block.controls | uint64_t(1) << 63));
    stops += block.controls != 0;
    for (uint64_t more = block.controls & (block.controls - 1); more != 0; more &= more - 1)
      *stops++ = uint32_t(at) + uint32_t(__builtin_ctzll(more));
  };
  for (; covered - at >= 64; at += 64) take_block(look(begin + at, all));
  if (at < covered) {
    Block block = look(begin + at, all);
    uint64_t inside = (uint64_t(1) << (covered - at)) - 1;
    take_block({block.quotes & inside, block.backslashes & inside, block.controls & inside});
  }
  index.quote_count = size_t(quotes - index.quotes.get());
  for (int i = 0; i < 4; i++) quotes[i] = stops[i] = no_index;
  // The bytes behind the end that the last block looked at may be anything: no harm but a needless check.
  index.is_ascii = covered == length && !has_high_bit(all);
  index.has_backslash = any_backslash != 0;
}

}  // namespace
