import Catalog
import RuleLang
import Testing

/// What the planner relies on, checked on every program that compiles in these tests.
struct ProgramInvariants {
  private let program: TypedProgram
  private var problems: [String] = []

  /// Everything that is wrong with a program; nothing, if the checker keeps its promises.
  static func problems(of program: TypedProgram) -> [String] {
    var check = ProgramInvariants(program: program)
    check.run()
    return check.problems
  }

  private init(program: TypedProgram) { self.program = program }

  private mutating func require(_ condition: Bool, _ what: String) {
    if !condition { problems.append(what) }
  }

  private mutating func run() {
    for source in program.sources { check(source) }
    for (index, stream) in program.streams.enumerated() { check(stream, at: index) }
    for metric in program.metrics {
      let stream = program.streams[metric.stream]
      require(stream.windowing?.keyColumns == metric.labels, "labels of \(metric.name)")
      require(metric.value.type.isNumeric, "value of \(metric.name)")
      check(metric.value, stream.columns)
    }
    for alert in program.alerts {
      let stream = program.streams[alert.stream]
      let keys = Set(stream.windowing?.keyColumns ?? [])
      require(stream.windowing != nil, "windows of \(alert.name)")
      require(alert.condition.type == .bool, "condition of \(alert.name)")
      require(alert.forNanos >= 0 && alert.keepFiringNanos >= 0, "waits of \(alert.name)")
      check(alert.condition, stream.columns)
      for (isLabel, templates) in [(true, alert.labels), (false, alert.annotations)] {
        require(Set(templates.map(\.name)).count == templates.count, "names in \(alert.name)")
        for case .value(let value) in templates.flatMap(\.parts) {
          check(value, stream.columns)
          if isLabel { require(value.columnIndexes.isSubset(of: keys), "label of \(alert.name)") }
        }
      }
    }
  }

  private mutating func check(_ source: TypedSource) {
    require(source.fields.indices.contains(source.time.field), "time of \(source.name)")
    let time = source.fields[source.time.field]
    require(time.type == .timestamp && !time.isNullable && time.defaultValue == nil, "time")
    require(source.time.boundNanos >= 0 && source.time.idleNanos >= 0, "waits of \(source.name)")
    require(source.partitionedBy.allSatisfy { source.fields.indices.contains($0) }, "partitions of \(source.name)")
    require(Set(source.partitionedBy).count == source.partitionedBy.count, "partitions of \(source.name)")
    for field in source.fields {
      require(!field.path.isEmpty, "path of \(field.name)")
      if let value = field.defaultValue { require(value.type == field.type, "default of \(field.name)") }
    }
    for requirement in source.requirements {
      require(requirement.condition.type == .bool, "require in \(source.name)")
      check(requirement.condition, source.columns)
    }
  }

  private mutating func check(_ stream: TypedStream, at index: Int) {
    var columns: [TypedColumn]
    var windowing: Windowing?
    switch stream.input {
    case .source(let source): columns = program.sources[source].columns
    case .stream(let input):
      require(input < index, "order of \(stream.name)")
      columns = program.streams[input].columns
      windowing = program.streams[input].windowing
    }
    for stage in stream.stages {
      switch stage {
      case .filter(let condition):
        require(condition.type == .bool, "filter in \(stream.name)")
        check(condition, columns)
      case .derive(let assignments):
        for assignment in assignments {
          check(assignment.expression, columns)
          columns.append(
            TypedColumn(name: assignment.name, type: assignment.expression.type, isNullable: true))
        }
      case .cluster(let cluster):
        require(windowing == nil, "cluster behind windows")
        require(columns.indices.contains(cluster.message) && columns[cluster.message].type == .string, "message")
        require(cluster.keys.allSatisfy(columns.indices.contains), "keys of a cluster")
        for (name, type) in zip(TypedCluster.columnNames, [ValueType.string, .string, .bool, .bool, .string]) {
          columns.append(TypedColumn(name: name, type: type, isNullable: true))
        }
        for value in cluster.values {
          require(value.number > 0, "number of \(value.name)")
          columns.append(TypedColumn(name: value.name, type: value.type, isNullable: true))
        }
      case .join(let join):
        let (right, rightWindowing) = rightSide(join, index)
        require(right == join.rightColumns, "right side of \(stream.name)")
        require(!join.leftKeys.isEmpty && join.leftKeys.count == join.rightKeys.count, "keys of a join")
        for (a, b) in zip(join.leftKeys, join.rightKeys) {
          require(columns.indices.contains(a) && right.indices.contains(b), "keys of a join")
          require(columns[a].type == right[b].type, "types of a join's keys")
        }
        require(join.lowNanos <= 0 && join.highNanos >= 0, "interval of a join")
        if join.isByWindow { require(windowing != nil && windowing?.window == rightWindowing?.window, "joined windows") }
        windowing = join.windowing(left: windowing, leftColumns: columns.count, right: rightWindowing)
        columns += join.addedColumns
      case .trace(let trace):
        require(windowing == nil, "trace behind windows")
        require(trace.gapNanos > 0 && trace.longestNanos > 0, "times of a trace")
        for (place, type) in [
          (trace.span, ValueType.string), (trace.parent, .string), (trace.service, .string), (trace.duration, .duration),
        ] { require(columns.indices.contains(place) && columns[place].type == type, "columns of a span") }
        if let start = trace.start { require(columns[start].type == .timestamp, "start of a span") }
        if let error = trace.error { require(columns[error].type == .bool, "error of a span") }
        columns = trace.keys.map { key in
          TypedColumn(name: keyName(columns[key].name), type: columns[key].type, isNullable: false)
        } + trace.columns
      case .slo(let slo):
        require(windowing?.window.hopNanos == slo.stepNanos, "steps of \(stream.name)")
        require(windowing?.keyColumns == slo.keys, "keys of \(stream.name)")
        check(slo.measure, columns)
        if let total = slo.total {
          check(total, columns)
          require(total.type.isNumeric && slo.measure.type.isNumeric, "amounts of \(stream.name)")
        } else {
          require(slo.measure.type == .bool, "slices of \(stream.name)")
        }
        require(slo.objective > 0 && sloBudget(slo.objective) > 0, "objective of \(stream.name)")
        require(slo.burnWindows == Set(slo.burnWindows).sorted() && !slo.burnWindows.isEmpty, "burn windows")
        require(slo.burnWindows.allSatisfy { $0 % slo.stepNanos == 0 && $0 / slo.stepNanos <= SloLimits.stepsMax }, "steps")
        require(slo.burnWindows.contains(slo.idleNanos) && slo.burnWindows.contains(slo.exhaustionNanos), "windows")
        columns =
          slo.keys.map { columns[$0] }
          + slo.outputs.map { TypedColumn(name: $0.name, type: $0.type, isNullable: $0.isNullable) }
        windowing = Windowing(
          window: WindowSpec(sizeNanos: slo.stepNanos, hopNanos: slo.stepNanos), keyColumns: Array(slo.keys.indices))
      case .detector(let detector):
        require(detector.keys.allSatisfy(columns.indices.contains), "keys of \(detector.name)")
        if let argument = detector.argument {
          require(columns.indices.contains(argument) && columns[argument].type.isNumeric, "argument of \(detector.name)")
        }
        if let windowing {
          require(Set(windowing.keyColumns).isSubset(of: detector.keys), "windows' keys of \(detector.name)")
          require(!detector.isExchanged, "exchange of \(detector.name)")
        }
        if detector.isOwnRows {
          require(windowing != nil, "windows of \(detector.name)")
          columns = detector.keys.map { columns[$0] }
          windowing = windowing.map { Windowing(window: $0.window, keyColumns: Array(columns.indices)) }
        }
        columns += detector.columns
      case .aggregate(let aggregation):
        let window = aggregation.window
        require(window.hopNanos > 0 && window.sizeNanos % window.hopNanos == 0, "window")
        if let windowing { require(window.hopNanos % windowing.window.hopNanos == 0, "inner window") }
        require(Set(aggregation.keys).count == aggregation.keys.count, "keys")
        var after = aggregation.keys.map { columns[$0] }
        for index in after.indices { after[index].name = keyName(after[index].name) }
        for aggregate in aggregation.aggregates {
          if let argument = aggregate.argument { check(argument, columns) }
          if let filter = aggregate.filter {
            require(filter.type == .bool, "filter of \(aggregate.name)")
            check(filter, columns)
          }
          after.append(TypedColumn(name: aggregate.name, type: aggregate.type, isNullable: true))
        }
        columns = after
        windowing = Windowing(window: window, keyColumns: Array(aggregation.keys.indices))
      }
    }
    require(columns.map(\.name) == stream.columns.map(\.name), "names of \(stream.name)")
    require(columns.map(\.type) == stream.columns.map(\.type), "types of \(stream.name)")
    require(Set(columns.map(\.name)).count == columns.count, "a name twice in \(stream.name)")
    require(windowing == stream.windowing, "windowing of \(stream.name)")
  }

  private mutating func rightSide(_ join: TypedJoin, _ index: Int) -> (columns: [TypedColumn], windowing: Windowing?) {
    switch join.right {
    case .source(let source): return (program.sources[source].columns, nil)
    case .stream(let right):
      require(right < index, "order of a join's right side")
      return (program.streams[right].columns, program.streams[right].windowing)
    }
  }

  private mutating func check(
    _ expression: TypedExpr, _ columns: [TypedColumn], isArgument: Bool = false
  ) {
    switch expression {
    case .constant(let value, let type):
      require(value.type == type || value == .null && isArgument, "constant \(value) as \(type)")
    case .column(let index, let type):
      require(columns.indices.contains(index) && columns[index].type == type, "column \(index)")
    case .not(let inner):
      require(inner.type == .bool, "operand of not")
      check(inner, columns)
    case .negate(let inner, let type):
      require(inner.type == type && type.isNumeric, "operand of -")
      check(inner, columns)
    case .logical(_, let left, let right):
      require(left.type == .bool && right.type == .bool, "operands of and, or")
      check(left, columns)
      check(right, columns)
    case .compare(let operation, let left, let right):
      require(left.type.physical == right.type.physical, "physical types in \(expression)")
      require(
        left.type == right.type || left.type.isDimensionless && right.type.isDimensionless,
        "types in \(expression)")
      if left.type == .bool { require(operation == .equal || operation == .notEqual, "order of bools") }
      check(left, columns)
      check(right, columns)
    case .arithmetic(let operation, let left, let right, let type):
      checkArithmetic(operation, left, right, type, expression)
      check(left, columns)
      check(right, columns)
    case .isNull(let inner): check(inner, columns)
    case .isIn(let inner, let values):
      require(!values.isEmpty && values.allSatisfy { $0.type == inner.type }, "members of \(expression)")
      check(inner, columns)
    case .call(_, let arguments, _):
      for argument in arguments { check(argument, columns, isArgument: true) }
    case .toFloat(let inner, let type):
      require(inner.type == .int && (type == .float || type == .ratio), "toFloat in \(expression)")
      check(inner, columns)
    }
  }

  private mutating func checkArithmetic(
    _ operation: ArithmeticOperator, _ left: TypedExpr, _ right: TypedExpr, _ type: ValueType,
    _ expression: TypedExpr
  ) {
    switch (left.type, right.type) {
    case (.timestamp, .timestamp):
      require(operation == .subtract && type == .duration, "\(expression)")
    case (.timestamp, .duration):
      require((operation == .add || operation == .subtract) && type == .timestamp, "\(expression)")
    default:
      require(left.type.isNumeric && right.type.isNumeric && type.isNumeric, "\(expression)")
      require(left.type.physical == right.type.physical, "physical types in \(expression)")
      require(type.physical == left.type.physical, "result of \(expression)")
      if operation == .divide { require(type.physical == .float64, "quotient \(expression)") }
      if operation == .remainder { require(type == .int, "remainder \(expression)") }
    }
  }
}
