/// The candidate that somebody most likely meant, if one is close enough: at most a third of the
/// letters wrong, or the same word in other dress (`latencyMs` for `latency_ms`).
func closest(to word: String, among candidates: some Sequence<String>) -> String? {
  let wordBytes = Array(word.utf8.prefix(64))
  let plainWord = plain(wordBytes)
  let limit = max(1, wordBytes.count / 3)
  var best: (name: String, distance: Int)?
  for candidate in candidates where candidate != word {
    let bytes = Array(candidate.utf8.prefix(64))
    var distance = Int.max
    if plain(bytes) == plainWord {
      distance = 0
    } else if abs(bytes.count - wordBytes.count) <= limit {
      // A two-letter name is not the misspelling of every other one.
      let found = editDistance(wordBytes, bytes, limit: limit)
      if found <= limit, found < max(bytes.count, wordBytes.count) - (wordBytes.count > 1 ? 1 : 0) {
        distance = found
      }
    }
    // Equal distances go to the name that stands first in the alphabet, so that a run repeats.
    if distance < (best?.distance ?? Int.max)
      || distance == best?.distance && distance != Int.max && candidate < best?.name ?? ""
    {
      best = (candidate, distance)
    }
  }
  return best?.name
}

private func plain(_ bytes: [UInt8]) -> [UInt8] {
  bytes.compactMap { byte in
    switch byte {
    case UInt8(ascii: "_"), UInt8(ascii: "-"): nil
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte | 0x20
    default: byte
    }
  }
}

/// Damerau-Levenshtein distance (optimal string alignment: no part is edited twice); anything above
/// `limit` may come back as `limit + 1`.
private func editDistance(_ a: [UInt8], _ b: [UInt8], limit: Int) -> Int {
  var twoBack = [Int](repeating: 0, count: b.count + 1)
  var previous = Array(0...b.count)
  var current = previous
  for i in 0..<a.count {
    current[0] = i + 1
    var smallest = current[0]
    for j in 0..<b.count {
      var cost = min(
        previous[j] + (a[i] == b[j] ? 0 : 1), previous[j + 1] + 1, current[j] + 1)
      if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { cost = min(cost, twoBack[j - 1] + 1) }
      current[j + 1] = cost
      smallest = min(smallest, cost)
    }
    if smallest > limit { return limit + 1 }
    (twoBack, previous, current) = (previous, current, twoBack)
  }
  return previous[b.count]
}
