import Catalog
import Runtime

/// `metric name = value by keys`: a record for each row of a window whose value is not null.
public struct Metric: RowTaskDefinition {
  public var name: String
  /// Rank among the graph's rules.
  public var rule: Int32
  public var labels: [NamedSlot]
  public var value: NamedSlot
  public var windowNanos: Int64

  public init(
    name: String, rule: Int32, labels: [NamedSlot], value: NamedSlot, windowNanos: Int64
  ) {
    self.name = name
    self.rule = rule
    self.labels = labels
    self.value = value
    self.windowNanos = windowNanos
  }

  public func makeTask(_ context: TaskContext) -> RowTask { MetricTask(self, context.output) }
}

private final class MetricTask: RowTask {
  private let definition: Metric
  private let output: RecordWriter
  private let origin: RecordOrigin
  /// `"service":` for each label: names do not change from record to record.
  private let labelHeads: [[UInt8]]

  init(_ definition: Metric, _ output: RecordWriter) {
    self.definition = definition
    self.output = output
    origin = RecordOrigin(.metric, rule: definition.rule, name: definition.name)
    labelHeads = definition.labels.map { label in
      var head: [UInt8] = []
      head.append(jsonString: label.name)
      head.append(UInt8(ascii: ":"))
      return head
    }
  }

  private func appendLabels(to bytes: inout some TextOutput & ~Copyable, _ batch: Batch, _ row: Int) {
    var isFirst = true
    for index in labelHeads.indices {
      let column = batch.columns[definition.labels[index].slot]
      if column.hasNulls, column.validity[row] == 0 { continue }
      if !isFirst { bytes.append(UInt8(ascii: ",")) }
      isFirst = false
      bytes.append(bytes: labelHeads[index])
      bytes.appendLabelValue(column, row, type: definition.labels[index].type)
    }
  }

  override func lack(_ slots: Set<Int>) -> Bool {
    slots.contains(definition.value.slot) || definition.labels.contains { slots.contains($0.slot) }
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    let column = batch.columns[definition.value.slot]
    for index in 0..<selection.count {
      let row = Int(selection.rows[index])
      if column.hasNulls, column.validity[row] == 0 { continue }
      let end = batch.times[row] + 1
      output.open(origin, time: end, windowNanos: definition.windowNanos) {
        $0.appendKey(definition.labels, batch, row)
      }
      output.append { bytes in
        bytes.append(json: ",\"labels\":{")
        appendLabels(to: &bytes, batch, row)
        bytes.append(json: "},\"values\":{\"value\":")
        bytes.appendJSON(column, row, type: definition.value.type)
        bytes.append(json: "}")
      }
      output.close(origin, time: end)
    }
  }
}
