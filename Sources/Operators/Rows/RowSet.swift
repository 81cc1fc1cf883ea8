import Catalog
import Runtime

/// A set of rows in the graph and all that hangs on it: columns to compute, operators that take the rows, narrower sets.
///
/// The planner builds one for each distinct chain of filters over a source (or over the rows of a window), so that rules
/// with a filter in common evaluate it once.
public struct RowSet: RowTaskDefinition {
  /// A column that somebody below needs, computed for this set's rows; evaluated in order.
  public struct ComputedSlot: Sendable {
    public var slot: Int
    public var expression: TypedExpr
    public init(slot: Int, expression: TypedExpr) {
      self.slot = slot
      self.expression = expression
    }
  }

  /// Rows of this set for which the condition is true.
  public struct Branch: Sendable {
    public var condition: TypedExpr
    public var rows: RowSet
    public init(condition: TypedExpr, rows: RowSet) {
      self.condition = condition
      self.rows = rows
    }
  }

  /// Rows of this set by the value of one column: each row is looked up once, however many branches there are.
  public struct Dispatch: Sendable {
    public var slot: Int
    public var type: ValueType
    public var branches: [(value: Value, rows: RowSet)]
    public init(slot: Int, type: ValueType, branches: [(value: Value, rows: RowSet)]) {
      self.slot = slot
      self.type = type
      self.branches = branches
    }
  }

  public var computed: [ComputedSlot]
  public var consumers: [any RowTaskDefinition]
  public var branches: [Branch]
  public var dispatches: [Dispatch]

  public init(
    computed: [ComputedSlot] = [], consumers: [any RowTaskDefinition] = [],
    branches: [Branch] = [], dispatches: [Dispatch] = []
  ) {
    self.computed = computed
    self.consumers = consumers
    self.branches = branches
    self.dispatches = dispatches
  }

  public func makeTask(_ context: TaskContext) -> RowTask { RowSetTask(self, context) }
}

final class RowSetTask: RowTask {
  private let computed: ContiguousArray<(slot: Int, evaluator: Evaluator)>
  /// By computed column, the slots that it is made of.
  private let operands: [Set<Int>]
  /// Consumers, then branches and dispatches: everything that takes this set's rows.
  private let children: ContiguousArray<RowTask>
  /// The same, to be called without counting references: with a thousand rules that is done a million times.
  private let calls: ContiguousArray<Unmanaged<RowTask>>
  /// While aggregates are missing: the columns, and the children, that need them; nil at all other times.
  private var lacking: (computed: Set<Int>, children: [Bool])?

  init(_ definition: RowSet, _ context: TaskContext) {
    computed = ContiguousArray(
      definition.computed.map {
        ($0.slot, makeEvaluator($0.expression, capacity: context.batchRows))
      })
    operands = definition.computed.map { Set($0.expression.columnIndexes) }
    var children = ContiguousArray<RowTask>()
    for consumer in definition.consumers { children.append(consumer.makeTask(context)) }
    for branch in definition.branches {
      children.append(FilterTask(branch.condition, branch.rows.makeTask(context), context))
    }
    for dispatch in definition.dispatches { children.append(DispatchTask(dispatch, context)) }
    self.children = children
    calls = ContiguousArray(children.map { Unmanaged.passUnretained($0) })
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    if lacking != nil { return processRest(batch, selection) }
    for index in computed.indices {
      batch.columns[computed[index].slot] = computed[index].evaluator.evaluate(batch, selection)
    }
    for index in calls.indices {
      calls[index]._withUnsafeGuaranteedRef { $0.process(batch, selection) }
    }
  }

  /// What does without the aggregates that are missing.
  private func processRest(_ batch: Batch, _ selection: Selection) {
    guard let lacking else { return }
    for index in computed.indices where !lacking.computed.contains(index) {
      batch.columns[computed[index].slot] = computed[index].evaluator.evaluate(batch, selection)
    }
    for (index, child) in children.enumerated() where !lacking.children[index] { child.process(batch, selection) }
  }

  override func lack(_ slots: Set<Int>) -> Bool {
    var slots = slots
    var without: Set<Int> = []
    for (index, entry) in computed.enumerated() where !operands[index].isDisjoint(with: slots) {
      without.insert(index)
      slots.insert(entry.slot)
    }
    let needing = children.map { $0.lack(slots) }
    lacking = slots.isEmpty ? nil : (without, needing)
    return !slots.isEmpty && needing.allSatisfy { $0 }
  }

  override func windowEnded(_ end: Int64) {
    for (index, child) in children.enumerated() {
      if lacking?.children[index] == true { child.windowSkipped(end) } else { child.windowEnded(end) }
    }
  }
  override func windowSkipped(_ end: Int64) { for child in children { child.windowSkipped(end) } }
  override func inputEnded() { for child in children { child.inputEnded() } }
  override var stateSize: (keys: Int, bytes: Int) {
    children.reduce((0, 0)) { sum, child in
      let size = child.stateSize
      return (max(sum.0, size.keys), sum.1 + size.bytes)
    }
  }
  override var isQuiet: Bool { children.allSatisfy(\.isQuiet) }
  override var holdSince: Int64? { children.compactMap(\.holdSince).min() }
}
