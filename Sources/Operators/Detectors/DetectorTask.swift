import CColumns
import Catalog
import Runtime

/// Runs a detector over the rows of its shard, which come in the order of each series, and passes them on with the
/// detector's columns filled.
final class DetectorTask: RowTask, StatefulTask {
  private static let stateVersion: UInt16 = 1
  private let stage: DetectorStage
  private let kernel: DetectorKernel
  private let rows: RowTask
  private let series: SeriesTable
  private let columns: [Column]
  private let columnCalls: ContiguousArray<Unmanaged<Column>>
  private let inputs: UnsafeMutablePointer<Double>
  private let states: UnsafeMutablePointer<UnsafeMutablePointer<Double>?>
  private let fingerprint: UInt64

  init(_ stage: DetectorStage, _ context: TaskContext) {
    self.stage = stage
    let capacity = context.batchRows
    kernel = stage.detector.makeKernel(batchRows: capacity)
    series = SeriesTable(
      keyTypes: stage.keyTypes, keySlots: stage.keySlots, ownerSlots: stage.ownerSlots, words: stage.detector.words,
      seriesMax: stage.seriesMax, forgetNanos: stage.forgetNanos, batchRows: capacity)
    columns = stage.outputTypes.map { Column(type: $0, capacity: capacity) }
    columnCalls = ContiguousArray(columns.map { Unmanaged.passUnretained($0) })
    for column in columns { column.hasNulls = column.type != .bool }
    inputs = .allocate(capacity: capacity)
    inputs.initialize(repeating: 0, count: capacity)
    states = .allocate(capacity: capacity)
    states.initialize(repeating: nil, count: capacity)
    fingerprint = stage.detector.stateFingerprint
    rows = stage.rows.makeTask(context)
    super.init()
    context.register(stateful: self)
  }

  deinit {
    inputs.deallocate()
    states.deallocate()
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0 else { return }
    var start = 0
    while start < selection.count {
      let count = series.enterEpoch(batch, selection, from: start)
      let rows = selection.rows + start
      series.find(batch, rows, count: count, into: states)
      readInputs(batch, rows, count)
      columnCalls.withUnsafeBufferPointer { columns in
        guard let base = columns.baseAddress else { return }
        kernel.process(
          DetectorRows(
            count: count, rows: rows, times: batch.times, inputs: inputs, states: states, columns: base,
            columnCount: columns.count))
      }
      start += count
    }
    for (column, slot) in zip(columns, stage.outputs) { if let slot { batch.columns[slot] = column } }
    rows.process(batch, selection)
  }

  /// The argument as doubles, NaN for null and for what is too large to be squared.
  private func readInputs(_ batch: Batch, _ rows: UnsafePointer<Int32>, _ count: Int) {
    guard let argument = stage.argument else { return }
    let column = batch.columns[argument]
    if column.type == .int64 {
      let values = column.ints
      for index in 0..<count { inputs[index] = Double(values[Int(rows[index])]) }
    } else {
      let values = column.doubles
      for index in 0..<count {
        let value = values[Int(rows[index])]
        inputs[index] = abs(value) <= detectorInputMax ? value : .nan
      }
    }
    guard column.hasNulls else { return }
    for index in 0..<count where column.validity[Int(rows[index])] == 0 { inputs[index] = .nan }
  }

  override func windowEnded(_ end: Int64) { rows.windowEnded(end) }
  override func windowSkipped(_ end: Int64) { rows.windowSkipped(end) }
  override func inputEnded() { rows.inputEnded() }
  override var isQuiet: Bool { rows.isQuiet }
  override var holdSince: Int64? { rows.holdSince }
  override var stateSize: (keys: Int, bytes: Int) {
    let behind = rows.stateSize
    return (max(series.count, behind.keys), series.bytes + behind.bytes)
  }

  // MARK: State

  var operatorID: String { stage.operatorID }
  func capture() -> (any StateCapture)? { series.capture(Self.stateVersion, fingerprint: fingerprint) }
  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try series.restore(from: &reader, version: Self.stateVersion, fingerprint: fingerprint, scope: scope)
    guard reader.isAtEnd else { throw StateCorruption("the series of the state have bytes behind them") }
  }
}

/// Largest magnitude that a detector takes: its square is finite.
let detectorInputMax = 1e150

extension Detector {
  /// The fingerprint as stored state carries it.
  var stateFingerprint: UInt64 { detectorHash("\(Self.spec.name) \(fingerprint)") }
}

/// FNV-1a.
func detectorHash(_ text: String) -> UInt64 {
  var hash: UInt64 = 0xcbf2_9ce4_8422_2325
  for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
  return hash
}

extension DetectorSettings {
  /// Every option with its value, written or not, in the order of the spec: equal for equal behaviour.
  func fingerprint(of spec: DetectorSpec, members: [Member]) -> String {
    var parts = ["hop \(hopNanos)"]
    for option in spec.options where !option.isMember {
      parts.append("\(option.name)=\(value(option.name, in: spec).fingerprint)")
    }
    for member in members {
      for option in spec.options where option.isMember {
        parts.append("\(option.name)=\(value(option.name, of: member, in: spec).fingerprint)")
      }
      parts.append(";")
    }
    return parts.joined(separator: " ")
  }
}

extension DetectorValue {
  /// To the last bit.
  fileprivate var fingerprint: String {
    switch self {
    case .measured(let number, let type): "m\(String(number.bitPattern, radix: 16)) \(type.rawValue)"
    case .number(let number): "n\(String(number.bitPattern, radix: 16))"
    case .rows(let count): "r\(count)"
    case .duration(let nanos): "d\(nanos)"
    case .word(let word): word
    case .all: "all"
    case .halfLife(let rows): "h\(String(rows.bitPattern, radix: 16))"
    case .none: "none"
    }
  }
}
