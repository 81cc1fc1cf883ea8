import CColumns
import Catalog
import Runtime

/// `alert`: follows each label set of a windowed stream through pending, firing and resolved. A window's end is the
/// evaluation; a label set without a row in it is not true.
public struct Alert: RowTaskDefinition {
  public var name: String
  /// See `StatefulTask.operatorID`.
  public var operatorID = ""
  /// Rank among the graph's rules.
  public var rule: Int32
  /// Slot of the condition, a bool.
  public var condition: Int
  public var conditionText: String
  public var forNanos: Int64
  public var keepFiringNanos: Int64
  public var severity: String
  /// The stream's keys: they tell one alert from another.
  public var keys: [NamedSlot]
  public var labels: [Template]
  public var annotations: [Template]
  /// The columns of the row that are shown as evidence.
  public var values: [NamedSlot]
  public var windowNanos: Int64
  /// Whether an SLO fires it: its records are of type `slo`, one a severity.
  public var isBurn = false

  public init(
    name: String, rule: Int32, condition: Int, conditionText: String, forNanos: Int64,
    keepFiringNanos: Int64, severity: String, keys: [NamedSlot], labels: [Template],
    annotations: [Template], values: [NamedSlot], windowNanos: Int64
  ) {
    self.name = name
    self.rule = rule
    self.condition = condition
    self.conditionText = conditionText
    self.forNanos = forNanos
    self.keepFiringNanos = keepFiringNanos
    self.severity = severity
    self.keys = keys
    self.labels = labels
    self.annotations = annotations
    self.values = values
    self.windowNanos = windowNanos
  }

  public func makeTask(_ context: TaskContext) -> RowTask { AlertTask(self, context) }
}

final class AlertTask: RowTask {
  /// An alert that is pending or firing.
  struct Instance {
    var state: AlertState
    /// Of its keys, as the window's group table has it: which shard owns the alert.
    var hash: UInt64
    /// The last evaluation at which it had a row.
    var seen: Int64
    /// `"labels":{…}`, made once.
    var labels: [UInt8]
    /// `"values":{…},"annotations":{…}` of its last row.
    var evidence: [UInt8]
  }

  let definition: Alert
  private let output: RecordWriter
  var active: [[UInt8]: Instance] = [:]
  private var key: [UInt8] = []
  private var keyColumns = KeyColumns()
  /// In the order of the window's keys, which its hash follows.
  private let keySlots: [Int]
  private let origin: RecordOrigin

  init(_ definition: Alert, _ context: TaskContext) {
    self.definition = definition
    output = context.output
    keySlots = definition.keys.map(\.slot).sorted()
    origin = RecordOrigin(definition.isBurn ? .slo : .alert, rule: definition.rule, name: definition.name)
    super.init()
    context.register(stateful: self)
  }

  override var isQuiet: Bool { active.isEmpty }
  override var holdSince: Int64? { active.values.map(\.state.since).min() }

  override func process(_ batch: Batch, _ selection: Selection) {
    let condition = batch.columns[definition.condition]
    for index in 0..<selection.count {
      let row = Int(selection.rows[index])
      let isTrue =
        condition.bools[row] != 0 && (!condition.hasNulls || condition.validity[row] != 0)
      // Most keys are neither true nor active, and cost nothing more.
      if !isTrue && active.isEmpty { continue }
      key.removeAll(keepingCapacity: true)
      key.appendKey(definition.keys, batch, row)
      evaluate(isTrue, at: batch.times[row] + 1, batch, row)
    }
  }

  private func evaluate(_ isTrue: Bool, at time: Int64, _ batch: Batch, _ row: Int) {
    guard var instance = active[key] else {
      guard isTrue else { return }
      let (state, report) = AlertState.begin(at: time, forNanos: definition.forNanos)
      let instance = Instance(
        state: state, hash: hash(batch, row), seen: time, labels: labels(batch, row),
        evidence: evidence(batch, row))
      active[key] = instance
      write(report, instance, key: key, time: time)
      return
    }
    instance.seen = time
    instance.evidence = evidence(batch, row)
    let report: AlertState.Report?
    var isOver = false
    if isTrue {
      report = instance.state.isTrue(at: time, forNanos: definition.forNanos)
    } else {
      (isOver, report) = instance.state.isNotTrue(
        at: time, keepFiringNanos: definition.keepFiringNanos)
    }
    if let report { write(report, instance, key: key, time: time) }
    active[key] = isOver ? nil : instance
  }

  override func windowEnded(_ end: Int64) {
    guard !active.isEmpty else { return }
    let missing = active.filter { $0.value.seen < end }.keys
      .sorted { $0.lexicographicallyPrecedes($1) }
    for key in missing {
      guard var instance = active[key] else { continue }
      instance.seen = end
      let (isOver, report) = instance.state.isNotTrue(
        at: end, keepFiringNanos: definition.keepFiringNanos)
      if let report { write(report, instance, key: key, time: end) }
      active[key] = isOver ? nil : instance
    }
  }

  private func hash(_ batch: Batch, _ row: Int) -> UInt64 {
    var place = Int32(row)
    var hash: UInt64 = 0
    keyColumns.bind(batch, slots: keySlots)
    keyColumns.hashRows(&place, count: 1, into: &hash)
    return hash
  }

  private func labels(_ batch: Batch, _ row: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(json: "\"labels\":{")
    let hasKeys = bytes.appendLabels(definition.keys, batch, row)
    appendTemplates(definition.labels, batch, row, continuing: hasKeys, to: &bytes)
    bytes.append(UInt8(ascii: "}"))
    return bytes
  }

  private func evidence(_ batch: Batch, _ row: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(json: "\"values\":{")
    for (index, value) in definition.values.enumerated() {
      if index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(jsonString: value.name)
      bytes.append(UInt8(ascii: ":"))
      bytes.appendJSON(batch.columns[value.slot], row, type: value.type)
    }
    bytes.append(json: "},\"annotations\":{")
    appendTemplates(definition.annotations, batch, row, continuing: false, to: &bytes)
    bytes.append(UInt8(ascii: "}"))
    return bytes
  }

  private func appendTemplates(
    _ templates: [Template], _ batch: Batch, _ row: Int, continuing: Bool, to bytes: inout [UInt8]
  ) {
    var text: [UInt8] = []
    for (index, template) in templates.enumerated() {
      if continuing || index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(jsonString: template.name)
      bytes.append(UInt8(ascii: ":"))
      text.removeAll(keepingCapacity: true)
      template.append(to: &text, batch, row)
      bytes.append(jsonString: text)
    }
  }

  private func write(
    _ report: AlertState.Report, _ instance: Instance, key: [UInt8], time: Int64
  ) {
    output.open(origin, time: time, windowNanos: definition.windowNanos) {
      $0.append(contentsOf: key)
      guard definition.isBurn else { return }
      $0.append(0x1F)
      $0.append(contentsOf: definition.severity.utf8)
    }
    output.append { bytes in
      switch report {
      case .pending: bytes.append(json: ",\"state\":\"pending\"")
      case .firing: bytes.append(json: ",\"state\":\"firing\"")
      case .resolved: bytes.append(json: ",\"state\":\"resolved\"")
      }
      bytes.append(json: ",\"severity\":")
      bytes.append(jsonString: definition.severity)
      bytes.append(json: ",\"since\":")
      bytes.append(jsonTime: instance.state.since)
      bytes.append(json: ",\"when\":")
      bytes.append(jsonString: definition.conditionText)
      bytes.append(UInt8(ascii: ","))
      bytes.append(contentsOf: instance.labels)
      bytes.append(UInt8(ascii: ","))
      bytes.append(contentsOf: instance.evidence)
    }
    output.close(origin, time: time)
  }
}
