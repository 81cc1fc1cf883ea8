import Catalog
import Runtime

/// A detector: what is out of the ordinary in each series. To add one: a file with its spec and its kernel, and a line in
/// `OperatorCatalog.swift`.
///
/// It is made of the options of a stage and shared by all workers; what it keeps of a series is `words` doubles, which the
/// stage stores, checkpoints and forgets for it.
public protocol Detector: Sendable {
  static var spec: DetectorSpec { get }
  init(_ settings: DetectorSettings)
  /// Doubles kept for a series; they begin as zeros.
  var words: Int { get }
  /// Tells apart settings under which the words mean something else, or something else comes of them.
  var fingerprint: String { get }
  func makeKernel(batchRows: Int) -> DetectorKernel
  /// What runs the stage; detectors with rows of their own have a task of their own.
  func makeTask(_ stage: DetectorStage, _ context: TaskContext) -> RowTask
}

extension Detector {
  public func makeTask(_ stage: DetectorStage, _ context: TaskContext) -> RowTask { DetectorTask(stage, context) }
}

/// A detector at work: one instance a task, one call a batch.
open class DetectorKernel {
  public init() {}
  /// Goes through rows in their order, and writes all of its columns for each.
  open func process(_ rows: DetectorRows) {}
}

/// Rows as a kernel sees them. `count` of them; what stands at `index` belongs to row `rows[index]` of the batch.
///
/// The door to raw memory: every pointer has `count` elements, columns as many as the batch.
public struct DetectorRows {
  public let count: Int
  let rows: UnsafePointer<Int32>
  let times: UnsafePointer<Int64>
  let inputs: UnsafePointer<Double>
  let states: UnsafePointer<UnsafeMutablePointer<Double>?>
  let columns: UnsafePointer<Unmanaged<Column>>
  let columnCount: Int

  /// Event time of a row, nanoseconds.
  @inline(__always) func time(_ index: Int) -> Int64 { times[Int(rows[index])] }
  /// The argument; NaN for null.
  @inline(__always) func input(_ index: Int) -> Double { inputs[index] }
  /// What is kept of the row's series; nil where there are too many series.
  @inline(__always) func state(_ index: Int) -> UnsafeMutablePointer<Double>? { states[index] }

  /// One column to write; NaN is null.
  struct Numbers {
    let values: UnsafeMutablePointer<Double>
    let validity: UnsafeMutablePointer<UInt8>
    let rows: UnsafePointer<Int32>
    @inline(__always) func set(_ index: Int, _ value: Double) {
      let row = Int(rows[index])
      validity[row] = value.isFinite ? 1 : 0
      values[row] = value
    }
  }

  struct Flags {
    let values: UnsafeMutablePointer<UInt8>
    let rows: UnsafePointer<Int32>
    @inline(__always) func set(_ index: Int, _ value: Bool) { values[Int(rows[index])] = value ? 1 : 0 }
  }

  func numbers(_ column: Int) -> Numbers {
    precondition(column < columnCount)
    return columns[column]._withUnsafeGuaranteedRef {
      Numbers(values: $0.doubles, validity: $0.validity, rows: rows)
    }
  }

  func flags(_ column: Int) -> Flags {
    precondition(column < columnCount)
    return columns[column]._withUnsafeGuaranteedRef { Flags(values: $0.bools, rows: rows) }
  }
}

/// The spec of a detector of this build.
public func detectorSpec(_ name: String) -> DetectorSpec? { detectorList.first { $0.spec.name == name }?.spec }

/// A detector of this build with its options.
public func makeDetector(_ spec: DetectorSpec, _ settings: DetectorSettings) -> any Detector {
  guard let type = detectorList.first(where: { $0.spec.name == spec.name }) else {
    preconditionFailure("a spec comes from the list of detectors")
  }
  return type.init(settings)
}

/// A detector stage in the graph.
public struct DetectorStage: RowTaskDefinition {
  /// See `StatefulTask.operatorID`.
  public var operatorID: String
  public var detector: any Detector
  /// Slots that tell one series from another.
  public var keySlots: [Int]
  public var keyTypes: [PhysicalType]
  /// Slots by whose hash rows have their shard: some or all of the keys.
  public var ownerSlots: [Int]
  public var argument: Int?
  public var argumentType: ValueType?
  /// By column of the spec: its slot, nil where nobody reads it.
  public var outputs: [Int?]
  public var outputTypes: [PhysicalType]
  /// Types of all slots of the rows.
  public var slotTypes: [PhysicalType]
  public var seriesMax: Int
  /// A series without a row for so long, or up to an eighth longer, is forgotten.
  public var forgetNanos: Int64
  public var rows: RowSet

  public init(
    operatorID: String, detector: any Detector, keySlots: [Int], keyTypes: [PhysicalType], ownerSlots: [Int],
    argument: Int?, argumentType: ValueType?, outputs: [Int?], outputTypes: [PhysicalType], slotTypes: [PhysicalType],
    seriesMax: Int, forgetNanos: Int64, rows: RowSet
  ) {
    self.operatorID = operatorID
    self.detector = detector
    self.keySlots = keySlots
    self.keyTypes = keyTypes
    self.ownerSlots = ownerSlots
    self.argument = argument
    self.argumentType = argumentType
    self.outputs = outputs
    self.outputTypes = outputTypes
    self.slotTypes = slotTypes
    self.seriesMax = seriesMax
    self.forgetNanos = forgetNanos
    self.rows = rows
  }

  public func makeTask(_ context: TaskContext) -> RowTask { detector.makeTask(self, context) }
}

/// Values of words as whole numbers: state that was read from a file may hold anything.
@inline(__always) func wordIndex(_ word: Double, below count: Int) -> Int {
  word >= 0 && word < Double(count) ? Int(word) : 0
}
