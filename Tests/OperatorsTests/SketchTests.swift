import Foundation
import Testing

@testable import Operators
@testable import Runtime

/// DDSketch's promise: the value of rank ceil(q·n) to within 1 %, whatever the values and however they were
/// merged.
@Suite struct SketchTests {
  private static let quantiles = [0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1]

  private func sketch(_ values: [Double]) -> QuantileState {
    let state = QuantileState()
    state.ensure(groups: 1)
    add(values, to: state)
    return state
  }

  private func add(_ values: [Double], to state: QuantileState) {
    let column = Column(type: .float64, capacity: max(1, values.count))
    for (row, value) in values.enumerated() { column.doubles[row] = value }
    state.update(
      column, times: [Int64](repeating: 0, count: values.count), rows: values.indices.map { Int32($0) },
      groups: [Int32](repeating: 0, count: values.count), count: values.count)
  }

  private func quantile(_ q: Double, _ state: QuantileState) -> Double? {
    let column = Column(type: .float64, capacity: 1)
    state.finish([0], count: 1, constants: [.float(q)], windowNanos: 1, into: column)
    return column.hasNulls ? nil : column.doubles[0]
  }

  private func check(_ state: QuantileState, _ values: [Double], from lowest: Double = 0) {
    let sorted = values.sorted()
    for q in Self.quantiles where q >= lowest {
      let rank = max(1, Int((q * Double(sorted.count)).rounded(.up)))
      let exact = sorted[rank - 1]
      guard let estimate = quantile(q, state) else {
        Issue.record("no quantile")
        return
      }
      #expect(abs(estimate - exact) <= 0.01 * abs(exact) * (1 + 1e-9), "q \(q): \(estimate), not \(exact)")
    }
  }

  /// Seven kinds of values, by number; the ranges stay within the bins of one run.
  private func values(_ kind: Int, _ count: Int, _ random: inout SeededRandom) -> [Double] {
    (0..<count).map { _ in
      switch kind {
      case 0: pow(10, Double.random(in: -9...12, using: &random))
      case 1: -pow(10, Double.random(in: -9...12, using: &random))
      case 2: Double.random(in: -1...1, using: &random)
      case 3: Double(Int.random(in: -3...3, using: &random))
      case 4: 1 - log(Double.random(in: 0.000_001...1, using: &random)) * 100
      case 5: pow(10, Double.random(in: 290...308, using: &random))
      default: pow(10, Double.random(in: -299 ... -280, using: &random))
      }
    }
  }

  @Test(arguments: 0..<7, [1, 2, 15, 16, 17, 127, 128, 129, 5_000])
  func isWithinOnePercent(_ kind: Int, _ count: Int) {
    var random = SeededRandom(UInt64(kind * 10_000 + count))
    let values = values(kind, count, &random)
    check(sketch(values), values)
    // In any split, in any order, list into run and run into list.
    for _ in 0..<4 {
      let cut = Int.random(in: 0...count, using: &random)
      let parts = [Array(values[..<cut]), Array(values[cut...])].shuffled(using: &random)
      let merged = sketch([])
      for part in parts { merged.merge(sketch(part), sources: [0], targets: [0], count: 1) }
      check(merged, values)
      add(values, to: merged)
      check(merged, values + values)
    }
  }

  @Test func everyBinsValueIsWithinOnePercentOfItsEdges() {
    var random = SeededRandom(77)
    for _ in 0..<50_000 {
      let value = pow(10, Double.random(in: -299.9...308.2, using: &random))
      let back = SketchMapping.value(SketchMapping.bin(value))
      #expect(abs(back - value) <= 0.010_000_01 * value, "\(value) -> \(back)")
    }
  }

  /// More bins than a run holds: the lowest are given up, and high quantiles stay right.
  @Test func collapseKeepsHighQuantiles() {
    var random = SeededRandom(5)
    let low = (0..<300).map { _ in pow(10, Double.random(in: -300 ... -250, using: &random)) }
    let high = (0..<9_700).map { _ in pow(10, Double.random(in: 0...20, using: &random)) }
    let values = (low + high).shuffled(using: &random)
    check(sketch(values), values, from: 0.25)
    let merged = sketch(low)
    merged.merge(sketch(high), sources: [0], targets: [0], count: 1)
    check(merged, values, from: 0.25)
    let other = sketch(high)
    other.merge(sketch(low), sources: [0], targets: [0], count: 1)
    check(other, values, from: 0.25)
  }

  @Test func nothingHasNoQuantileAndInfinityIsTheLargest() {
    #expect(quantile(0.5, sketch([])) == nil)
    #expect(quantile(0.5, sketch([0, 0, 0])) == 0)
    let state = sketch([1, .infinity, -.infinity])
    #expect((quantile(1, state) ?? 0) > 1e308)
    #expect((quantile(0, state) ?? 0) < -1e308)
  }
}
