import CColumns
import Catalog
import Runtime

/// A change of an alert's state on its way to the router, with all that is needed to tell of the alert.
struct AlertEvent: Sendable {
  enum Kind: UInt8, Sendable {
    /// It fires, and there was something to say of it.
    case update
    /// It fired in a life before this one. Only a router that does not know it cares.
    case announcement
    /// It is over.
    case resolved
  }
  /// Index among the router's alerts.
  var alert: Int
  var kind: Kind
  /// The evaluation.
  var time: Int64
  var key: [UInt8]
  var since: Int64
  var notice: AlertNotice
  var labelSet: AlertLabels
  /// As `AlertTask.Instance` has them.
  var labels: [UInt8]
  var evidence: [UInt8]

  func encode(into writer: StateWriter) {
    writer.append(UInt32(alert))
    writer.append(kind.rawValue)
    writer.append(time)
    writer.append(key)
    writer.append(since)
    notice.encode(into: writer)
    labelSet.encode(into: writer)
    writer.append(labels)
    writer.append(evidence)
  }

  init(
    alert: Int, kind: Kind, time: Int64, key: [UInt8], since: Int64, notice: AlertNotice, labelSet: AlertLabels,
    labels: [UInt8], evidence: [UInt8]
  ) {
    self.alert = alert
    self.kind = kind
    self.time = time
    self.key = key
    self.since = since
    self.notice = notice
    self.labelSet = labelSet
    self.labels = labels
    self.evidence = evidence
  }

  init(from reader: inout StateReader) throws(StateCorruption) {
    alert = Int(try reader.integer(UInt32.self))
    guard let kind = Kind(rawValue: try reader.integer(UInt8.self)) else {
      throw StateCorruption("a change of an alert's state is of no known kind")
    }
    self.kind = kind
    time = try reader.time()
    key = try reader.counted()
    since = try reader.time()
    notice = try AlertNotice(from: &reader)
    labelSet = try AlertLabels(from: &reader)
    labels = try reader.counted()
    evidence = try reader.counted()
  }

  /// The order in which the router takes them.
  static func precedes(_ a: AlertEvent, _ b: AlertEvent) -> Bool {
    if a.time != b.time { return a.time < b.time }
    if a.alert != b.alert { return a.alert < b.alert }
    return a.key.lexicographicallyPrecedes(b.key)
  }

  // MARK: Between shards

  /// The events as rows with one text each.
  static func chunk(_ events: [AlertEvent]) -> RowsChunk {
    let batch = Batch(types: [.string], capacity: events.count)
    let box = ArenaBox()
    for (row, event) in events.enumerated() {
      let writer = StateWriter()
      event.encode(into: writer)
      batch.times[row] = event.time
      let bytes = writer.bytes
      batch.columns[0].strings[row] = bytes.withUnsafeBufferPointer {
        rd_string(data: box.arena.copy($0.baseAddress, $0.count), length: UInt32(clamping: $0.count), hash: 0)
      }
    }
    batch.rowCount = events.count
    return RowsChunk(batch: batch, arena: box)
  }

  static func events(of chunk: RowsChunk) -> [AlertEvent] {
    (0..<chunk.batch.rowCount).map { row in
      let text = chunk.batch.columns[0].strings[row]
      var reader = StateReader(Array(UnsafeBufferPointer(start: text.data, count: Int(text.length))))
      do { return try AlertEvent(from: &reader) } catch {
        preconditionFailure("an event that `chunk` wrote cannot be read: \(error)")
      }
    }
  }
}
