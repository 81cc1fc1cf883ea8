import CColumns

/// The order of two records of the same time: by rule, then by key.
func recordIsBefore(
  _ a: OutputBatch, _ x: OutputBatch.Entry, _ b: OutputBatch, _ y: OutputBatch.Entry
) -> Bool {
  if x.rule != y.rule { return x.rule < y.rule }
  return a.keys.withUnsafeBufferPointer { a in
    b.keys.withUnsafeBufferPointer { b in
      guard let p = a.baseAddress, let q = b.baseAddress else { return x.ownKeyLength < y.ownKeyLength }
      return compareKeys(p, x, q, y) < 0
    }
  }
}

/// The order in which the records of one writer leave: by time, rule and key; of equal ones that which was written first.
struct RecordOrder {
  private let entries: UnsafePointer<OutputBatch.Entry>
  private let keys: UnsafePointer<UInt8>
  private let times: UnsafePointer<Int64>

  /// Records of one rule and time that were written behind one another, and in order: their places among the indexes.
  private struct Stretch {
    var first: Int
    var end: Int
  }

  /// Indexes of the records at or before `bound`, in order.
  ///
  /// A rule writes the rows of a window in the order of their keys. So the records are stretches that are in order, and as
  /// a rule it is enough to put these in order as wholes.
  static func sorted(_ batch: OutputBatch, _ times: [Int64], through bound: Int64) -> [Int] {
    batch.entries.withUnsafeBufferPointer { entries in
      batch.keys.withUnsafeBufferPointer { keys in
        times.withUnsafeBufferPointer { times in
          guard let entryBase = entries.baseAddress, let timeBase = times.baseAddress else { return [] }
          // Records without keys of their own are compared by rule and time alone.
          let keyBase = keys.baseAddress ?? UnsafeRawPointer(timeBase).assumingMemoryBound(to: UInt8.self)
          return RecordOrder(entries: entryBase, keys: keyBase, times: timeBase).sorted(times.count, through: bound)
        }
      }
    }
  }

  private func sorted(_ count: Int, through bound: Int64) -> [Int] {
    var indexes: [Int] = []
    indexes.reserveCapacity(count)
    var stretches: [Stretch] = []
    for index in 0..<count where times[index] <= bound {
      if let last = indexes.last, isSameMoment(last, index), !keyIsBefore(index, last) {
      } else {
        if !stretches.isEmpty { stretches[stretches.count - 1].end = indexes.count }
        stretches.append(Stretch(first: indexes.count, end: 0))
      }
      indexes.append(index)
    }
    guard stretches.count > 1 else { return indexes }
    stretches[stretches.count - 1].end = indexes.count
    stretches.sort { comesFirst(indexes[$0.first], indexes[$1.first]) }
    var order: [Int] = []
    order.reserveCapacity(indexes.count)
    var place = 0
    while place < stretches.count {
      // Those that reach into each other are put in order record by record.
      let begin = order.count
      var last = indexes[stretches[place].end - 1]
      order.append(contentsOf: indexes[stretches[place].first..<stretches[place].end])
      place += 1
      var isMixed = false
      while place < stretches.count, comesFirst(indexes[stretches[place].first], last) {
        let end = indexes[stretches[place].end - 1]
        if comesFirst(last, end) { last = end }
        order.append(contentsOf: indexes[stretches[place].first..<stretches[place].end])
        isMixed = true
        place += 1
      }
      if isMixed { order[begin...].sort(by: comesFirst) }
    }
    return order
  }

  private func isSameMoment(_ a: Int, _ b: Int) -> Bool {
    times[a] == times[b] && entries[a].rule == entries[b].rule
  }

  private func keyIsBefore(_ a: Int, _ b: Int) -> Bool { compareKeys(keys, entries[a], keys, entries[b]) < 0 }

  private func comesFirst(_ a: Int, _ b: Int) -> Bool {
    if times[a] != times[b] { return times[a] < times[b] }
    if entries[a].rule != entries[b].rule { return entries[a].rule < entries[b].rule }
    let order = compareKeys(keys, entries[a], keys, entries[b])
    return order == 0 ? a < b : order < 0
  }
}

/// Negative, zero or positive as the first record's own key is before, equal to, or behind the other's.
private func compareKeys(
  _ a: UnsafePointer<UInt8>, _ x: OutputBatch.Entry, _ b: UnsafePointer<UInt8>, _ y: OutputBatch.Entry
) -> Int {
  let order = Int(memcmp(a + x.keyStart, b + y.keyStart, min(x.ownKeyLength, y.ownKeyLength)))
  return order == 0 ? x.ownKeyLength - y.ownKeyLength : order
}
