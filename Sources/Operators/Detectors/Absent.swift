import CColumns
import Catalog
import Runtime

/// `absent after 5m`: keys that have had rows and have none any more. The end of a window is the evaluation, also of one
/// without any row, so that silence is heard as long as time goes on.
///
/// It makes rows of its own: one at each window's end for each key that has been silent for `after`, and one more, with
/// `is_anomaly` false, when the key is back or is forgotten. Keys that speak have no row.
public struct Absent: Detector {
  public static let spec: DetectorSpec = DetectorSpec(
    name: "absent",
    summary: "Rows of its own for keys of the windows that have had no row for `after`: one at each window's end, and one when the key is back.",
    takesColumn: false, rows: .ownAtWindowEnd,
    options: [
      DetectorOption("after", .duration(1_000_000...31_536_000_000_000_000), default: nil, "how long a key may be silent, from the end of its last window with a row")
    ],
    forgetNanos: 86_400_000_000_000,
    columns: [
      DetectorColumn("last_seen", .type(.timestamp), "end of the last window with a row"),
      DetectorColumn("silent_for", .type(.duration), "time since then"),
      DetectorColumn("is_anomaly", .type(.bool), "silent for `after` or longer; false in the one row when the key is back"),
    ],
    validate: { settings in
      let after = settings.nanos("after", in: Absent.spec)
      if after >= settings.nanos("forget", in: Absent.spec) {
        return DetectorProblem(
          "after", "the key would be forgotten before it is missed", hint: "add `forget` with a longer time, such as `forget 7d`")
      }
      return nil
    },
    stateBytes: { _ in (words + SeriesTable.headerWords) * 8 }, example: "absent after 5m")

  /// Whether it has been said that the key is silent.
  static let words = 1
  let afterNanos: Int64
  public let fingerprint: String
  public var words: Int { Self.words }

  public init(_ settings: DetectorSettings) {
    afterNanos = settings.nanos("after", in: Self.spec)
    fingerprint = settings.fingerprint(of: Self.spec, members: [])
  }

  public func makeKernel(batchRows: Int) -> DetectorKernel { DetectorKernel() }
  public func makeTask(_ stage: DetectorStage, _ context: TaskContext) -> RowTask { AbsentTask(self, stage, context) }
}

final class AbsentTask: RowTask, StatefulTask {
  private static let stateVersion: UInt16 = 1
  private let definition: Absent
  private let stage: DetectorStage
  private let rows: RowTask
  private let series: SeriesTable
  private let states: UnsafeMutablePointer<UnsafeMutablePointer<Double>?>
  private let batch: Batch
  /// The batch's own, also where somebody behind has put others.
  private let columns: [Column]
  private var hasEnded = false

  init(_ definition: Absent, _ stage: DetectorStage, _ context: TaskContext) {
    self.definition = definition
    self.stage = stage
    let capacity = context.batchRows
    series = SeriesTable(
      keyTypes: stage.keyTypes, keySlots: stage.keySlots, ownerSlots: stage.ownerSlots, words: Absent.words,
      seriesMax: stage.seriesMax, forgetNanos: stage.forgetNanos, batchRows: capacity)
    states = .allocate(capacity: capacity)
    states.initialize(repeating: nil, count: capacity)
    batch = Batch(types: stage.slotTypes, capacity: capacity)
    columns = Array(batch.columns)
    rows = stage.rows.makeTask(context)
    super.init()
    context.register(stateful: self)
  }

  deinit { states.deallocate() }

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0 else { return }
    // All rows of a window have one time.
    series.enterEpoch(at: batch.times[Int(selection.rows[0])])
    series.find(batch, selection.rows, count: selection.count, into: states)
  }

  /// A window of which nothing is known says nothing of anybody.
  override func windowSkipped(_ end: Int64) { rows.windowSkipped(end) }
  override func inputEnded() {
    hasEnded = true
    rows.inputEnded()
  }
  override var isQuiet: Bool { (hasEnded || series.count == 0) && rows.isQuiet }
  override var holdSince: Int64? { rows.holdSince }
  override var stateSize: (keys: Int, bytes: Int) {
    let behind = rows.stateSize
    return (max(series.count, behind.keys), series.bytes + behind.bytes)
  }

  override func windowEnded(_ end: Int64) {
    var silent: [Int32] = []
    var forgotten = false
    for group in 0..<series.count {
      let words = series.words(group)
      let silence = end - 1 - SeriesTable.time(words)
      let isKnown = words[SeriesTable.headerWords] > 0
      // After the end of the input nobody can speak any more: those who are back are told of, nobody is missed.
      if silence >= definition.afterNanos ? !hasEnded : isKnown && silence == 0 { silent.append(Int32(group)) }
      if silence >= stage.forgetNanos { forgotten = true }
    }
    emit(silent, end)
    if forgotten { series.keep { end - 1 - SeriesTable.time(series.words($0)) < stage.forgetNanos } }
    rows.windowEnded(end)
  }

  private func emit(_ unsorted: [Int32], _ end: Int64) {
    guard !unsorted.isEmpty else { return }
    let table = series.table
    let groups = table.ordered(unsorted)
    for column in columns {
      column.hasNulls = true
      column.validity.update(repeating: 0, count: batch.capacity)
    }
    groups.withUnsafeBufferPointer { groups in
      guard let base = groups.baseAddress else { return }
      var done = 0
      while done < groups.count {
        let count = min(groups.count - done, batch.capacity)
        for (column, slot) in stage.keySlots.enumerated() {
          table.writeKey(column, of: base + done, count: count, to: columns[slot])
        }
        for row in 0..<count { write(Int(base[done + row]), row, end) }
        batch.times.update(repeating: end - 1, count: count)
        batch.rowCount = count
        rows.process(batch, batch.all)
        done += count
      }
    }
  }

  private func write(_ group: Int, _ row: Int, _ end: Int64) {
    let words = series.ownedWords(group)
    let seen = SeriesTable.time(words)
    let silence = end - 1 - seen
    let isSilent = silence >= definition.afterNanos && silence < stage.forgetNanos
    words[SeriesTable.headerWords] = isSilent ? 1 : 0
    if let slot = stage.outputs[0] {
      columns[slot].ints[row] = seen + 1
      columns[slot].validity[row] = 1
    }
    if let slot = stage.outputs[1] {
      columns[slot].doubles[row] = Double(silence)
      columns[slot].validity[row] = 1
    }
    if let slot = stage.outputs[2] {
      columns[slot].bools[row] = isSilent ? 1 : 0
      columns[slot].validity[row] = 1
    }
  }

  // MARK: State

  var operatorID: String { stage.operatorID }
  func capture() -> (any StateCapture)? { series.capture(Self.stateVersion, fingerprint: definition.stateFingerprint) }
  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try series.restore(
      from: &reader, version: Self.stateVersion, fingerprint: definition.stateFingerprint, scope: scope)
    guard reader.isAtEnd else { throw StateCorruption("the keys of the state have bytes behind them") }
  }
}
