import CColumns
import Catalog
import Synchronization

/// A key that came in two partitions of a topic that `partitioned by` says are separated by it.
public struct BrokenPartitioning: Sendable, Hashable {
  public var source: String
  public var topic: String
  /// The fields of `partitioned by` and their values, for people.
  public var key: String
  public var partitions: [Int32]
}

/// Watches live sources that say `partitioned by`: does each key really come in one partition? Where it does not, daemons
/// that share the partitions have each a part of the key's rows, and what they say of it is wrong.
///
/// It looks at some rows of each batch and remembers some keys, so it notices what is wrong with the topic and not each
/// key that is. It lives as long as the daemon: engines come and go with their partitions. What other daemons read it
/// does not see.
public final class PartitioningCheck: Sendable {
  private struct State {
    var watches: [String: PartitioningWatch] = [:]
    var waiting: [BrokenPartitioning] = []
    var brokenKeys: [String: Int] = [:]
  }
  private let state = Mutex(State())
  /// Keys of a source that are told of one by one; the others are counted.
  static let reportsMax = 5

  public init() {}

  /// The watch over a source; nil where it says nothing about its partitions.
  func watch(_ node: SourceNode) -> PartitioningWatch? {
    guard !node.partitionedBy.isEmpty else { return nil }
    let fields = node.partitionedBy.map { node.schema.fields[$0].name }
    let name = "\(node.schema.name) \(node.schema.topic ?? "") \(fields.joined(separator: ","))"
    return state.withLock { state in
      if let known = state.watches[name] { return known }
      let made = PartitioningWatch(owner: self, source: node.schema.name, topic: node.schema.topic ?? "")
      state.watches[name] = made
      return made
    }
  }

  fileprivate func report(_ broken: BrokenPartitioning) {
    state.withLock { state in
      state.brokenKeys[broken.source, default: 0] += 1
      if state.brokenKeys[broken.source, default: 0] <= Self.reportsMax { state.waiting.append(broken) }
    }
  }

  /// What was found since the last call, at most a few keys a source.
  public func takeReports() -> [BrokenPartitioning] {
    state.withLock { state in
      defer { state.waiting = [] }
      return state.waiting
    }
  }

  /// Keys found in more than one partition, by source.
  public var brokenKeys: [String: Int] { state.withLock { $0.brokenKeys } }
}

/// The keys of a source that are remembered, and where they came: of all keys those whose hash ends in so many zeros that
/// they fit. So a key is remembered from its first row on or never, however many there are (distinct sampling, Gibbons,
/// VLDB 2001).
final class PartitioningWatch: Sendable {
  private struct State {
    var partitions: [UInt64: Int32] = [:]
    var zeros = 0
  }
  static let keysMax = 16_384
  /// Marks a key that has been reported.
  private static let broken: Int32 = -1

  private let owner: PartitioningCheck
  private let source: String
  private let topic: String
  private let state = Mutex(State())

  fileprivate init(owner: PartitioningCheck, source: String, topic: String) {
    self.owner = owner
    self.source = source
    self.topic = topic
  }

  /// Notes rows of a partition by their keys' hashes. `describe` says what the key of the n-th is; asked only for one that
  /// has been seen in another partition, the first time.
  func note(
    _ hashes: UnsafeBufferPointer<UInt64>, partition: Int32, describe: (_ position: Int) -> String
  ) {
    var found: [(position: Int, other: Int32)] = []
    state.withLock { state in
      for (position, hash) in hashes.enumerated() where hash.trailingZeroBitCount >= state.zeros {
        guard let known = state.partitions[hash] else {
          state.partitions[hash] = partition
          if state.partitions.count > Self.keysMax {
            state.zeros += 1
            let zeros = state.zeros
            state.partitions = state.partitions.filter { $0.key.trailingZeroBitCount >= zeros }
          }
          continue
        }
        guard known != partition, known != Self.broken else { continue }
        state.partitions[hash] = Self.broken
        found.append((position, known))
      }
    }
    for (position, other) in found {
      owner.report(
        BrokenPartitioning(
          source: source, topic: topic, key: describe(position), partitions: [other, partition].sorted()))
    }
  }

  /// For tests.
  var keyCount: Int { state.withLock { $0.partitions.count } }
}

/// Looks at some rows of each batch on behalf of a watch. One worker's.
struct PartitioningSampler: ~Copyable {
  /// Rows of a batch that are looked at; a small batch is looked at as a whole.
  static let rowsMax = 64

  private let watch: PartitioningWatch
  private let slots: [Int]
  private let names: [String]
  private let rows: UnsafeMutablePointer<Int32>
  private let hashes: UnsafeMutablePointer<UInt64>
  private var turn = 0

  init?(_ node: SourceNode, _ check: PartitioningCheck?) {
    guard let watch = check?.watch(node) else { return nil }
    self.watch = watch
    slots = node.partitionedBy
    names = node.partitionedBy.map { node.schema.fields[$0].name }
    rows = .allocate(capacity: Self.rowsMax)
    rows.initialize(repeating: 0, count: Self.rowsMax)
    hashes = .allocate(capacity: Self.rowsMax)
    hashes.initialize(repeating: 0, count: Self.rowsMax)
  }

  deinit {
    rows.deallocate()
    hashes.deallocate()
  }

  /// `selected` are `count` rows of the batch.
  mutating func look(at batch: Batch, _ selected: UnsafePointer<Int32>, count: Int, partition: Int32) {
    guard count > 0 else { return }
    let step = (count + Self.rowsMax - 1) / Self.rowsMax
    turn = (turn + 1) % step
    var taken = 0
    var place = turn
    while place < count, taken < Self.rowsMax {
      rows[taken] = selected[place]
      taken += 1
      place += step
    }
    for position in 0..<taken { hashes[position] = hash(of: batch, Int(rows[position])) }
    let rows = rows
    let names = names
    let slots = slots
    watch.note(UnsafeBufferPointer(start: hashes, count: taken), partition: partition) { position in
      let row = Int(rows[position])
      return zip(names, slots).map { "\($0) \(Self.text(batch.columns[$1], row))" }.joined(separator: ", ")
    }
  }

  /// 64 bits of the key itself: those of the decoder are 32, and two keys taken for one would be a false alarm.
  private func hash(of batch: Batch, _ row: Int) -> UInt64 {
    var hash: UInt64 = 0
    for slot in slots {
      let column = batch.columns[slot]
      var word = KeyColumns.nullWord
      if !(column.hasNulls && column.validity[row] == 0) {
        switch column.type {
        case .int64: word = UInt64(bitPattern: column.ints[row])
        case .float64: word = column.doubles[row] == 0 ? 0 : column.doubles[row].bitPattern
        case .bool: word = UInt64(column.bools[row])
        case .string: word = rd_hash64(column.strings[row].data, column.strings[row].length)
        }
      }
      hash = KeyColumns.combine(hash, word)
    }
    return hash
  }

  /// A value for people, at most 100 bytes of it.
  private static func text(_ column: Column, _ row: Int) -> String {
    if column.hasNulls, column.validity[row] == 0 { return "null" }
    switch column.type {
    case .int64: return "\(column.ints[row])"
    case .float64: return "\(column.doubles[row])"
    case .bool: return column.bools[row] != 0 ? "true" : "false"
    case .string:
      let value = column.strings[row]
      let bytes = UnsafeBufferPointer(start: value.data, count: min(Int(value.length), 100))
      var quoted: [UInt8] = []
      quoted.append(jsonString: String(decoding: bytes, as: UTF8.self))
      return String(decoding: quoted, as: UTF8.self)
    }
  }
}
