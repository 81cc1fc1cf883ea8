import Catalog
import Runtime

/// `pattern name = stream`: a record for each row of a stream behind `cluster`.
public struct PatternRecord: RowTaskDefinition {
  public var name: String
  /// Rank among the graph's rules.
  public var rule: Int32
  /// The keys, then the template's id.
  public var labels: [NamedSlot]
  public var template: Int
  public var isNew: Int
  public var isChanged: Int
  /// A JSON array.
  public var parameters: Int
  public var offset: Int

  public init(
    name: String, rule: Int32, labels: [NamedSlot], template: Int, isNew: Int, isChanged: Int, parameters: Int, offset: Int
  ) {
    self.name = name
    self.rule = rule
    self.labels = labels
    self.template = template
    self.isNew = isNew
    self.isChanged = isChanged
    self.parameters = parameters
    self.offset = offset
  }

  public func makeTask(_ context: TaskContext) -> RowTask { PatternRecordTask(self, context.output) }
}

private final class PatternRecordTask: RowTask {
  private let definition: PatternRecord
  private let output: RecordWriter
  private let origin: RecordOrigin

  init(_ definition: PatternRecord, _ output: RecordWriter) {
    self.definition = definition
    self.output = output
    origin = RecordOrigin(.pattern, rule: definition.rule, name: definition.name)
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    let template = batch.columns[definition.template]
    let parameters = batch.columns[definition.parameters]
    for index in 0..<selection.count {
      let row = Int(selection.rows[index])
      // A row without a message has no pattern.
      if template.hasNulls, template.validity[row] == 0 { continue }
      // As for rows of windows, the record lies one nanosecond behind the row: what the watermark has passed is out.
      let time = batch.times[row] + 1
      output.open(origin, time: time) { key in
        key.appendKey(definition.labels, batch, row)
        key.append(0x1F)
        key.append(json: batch.columns[definition.offset].ints[row])
      }
      output.append { bytes in
        bytes.append(json: ",\"labels\":{")
        _ = bytes.appendLabels(definition.labels, batch, row)
        bytes.append(json: "},\"values\":{\"template\":")
        bytes.append(jsonString: template.strings[row])
        bytes.append(json: ",\"is_new\":")
        bytes.append(json: batch.columns[definition.isNew].bools[row] != 0 ? "true" : "false")
        bytes.append(json: ",\"is_changed\":")
        bytes.append(json: batch.columns[definition.isChanged].bools[row] != 0 ? "true" : "false")
        bytes.append(json: ",\"parameters\":")
        bytes.append(string: parameters.strings[row])
        bytes.append(json: "}")
      }
      output.close(origin, time: time)
    }
  }
}
