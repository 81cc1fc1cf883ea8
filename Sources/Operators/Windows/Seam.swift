import Catalog
import Runtime

/// Where what was stored and what has come since do not fit together, because the rules have changed in between: until
/// when panes of another length are open, and until when aggregates or rows are missing.
///
/// Everything here is a time, never a key or a pane that is or is not there: so all shards decide alike, however many
/// they are.
struct Seam {
  /// Longest pane, and longest pane put together from several: 400 days.
  static let paneNanosMax: Int64 = 400 * 86_400 * 1_000_000_000

  private let paneNanos: Int64
  /// Other lengths of panes that are still open, and the end of the last of them.
  private(set) var lengths: [Int64: Int64] = [:]
  /// Panes that start before `mixedUntil` are put together into ones of this length; 0 for none.
  private(set) var mixedNanos: Int64 = 0
  private(set) var mixedUntil = beforeAllTime
  /// By state: rows before were read when it was not there.
  private(set) var stateSince: [Int64]
  /// Rows before are missing.
  private(set) var rowsSince = beforeAllTime
  private var isSeamless = true

  init(_ definition: PaneAggregation) {
    paneNanos = definition.paneNanos
    stateSince = Array(repeating: beforeAllTime, count: definition.states.count)
  }

  /// The panes that are merged into one with a pane that starts at `start`.
  func cell(of start: Int64) -> (start: Int64, length: Int64) {
    start < mixedUntil ? (floorToMultiple(start, of: mixedNanos), mixedNanos) : (start, paneNanos)
  }

  /// A pane of a length is open, or may be, that ends at or before `until`. False when it fits together with no other
  /// pane: then its rows count as missing.
  mutating func note(length: Int64, until: Int64) -> Bool {
    guard length != paneNanos else { return true }
    var known = lengths
    known[length] = max(known[length] ?? until, until)
    var common = paneNanos
    for length in known.keys {
      let (product, overflow) = (common / greatestCommonDivisor(common, length)).multipliedReportingOverflow(by: length)
      guard !overflow, product <= Self.paneNanosMax else {
        noteMissing(rowsBefore: until)
        return false
      }
      common = product
    }
    lengths = known
    mixedNanos = common
    mixedUntil = Self.ceiling(known.values.max() ?? until, of: common)
    isSeamless = false
    return true
  }

  mutating func noteMissing(state: Int, before time: Int64) {
    guard time > stateSince[state] else { return }
    stateSince[state] = time
    isSeamless = false
  }

  mutating func noteMissing(rowsBefore time: Int64) {
    guard time > rowsSince else { return }
    rowsSince = time
    isSeamless = false
  }

  /// What a pane lacks.
  mutating func noteMissing(in pane: Pane) {
    guard let lacking = pane.lacking else { return }
    for state in lacking.indices where lacking[state] { noteMissing(state: state, before: pane.end) }
  }

  /// Whether the window from `start` to `end` lacks rows, or would cut a pane in two.
  func cuts(start: Int64, end: Int64) -> Bool {
    if isSeamless { return false }
    if start < mixedUntil, start % mixedNanos != 0 || (end < mixedUntil && end % mixedNanos != 0) { return true }
    return start < rowsSince
  }

  /// Of the states that a window needs that starts at `start`, those that lack something in it or in what they look back at.
  func missing(start: Int64, _ needs: [(state: Int, lookbackNanos: Int64)]) -> Set<Int> {
    if isSeamless { return [] }
    return Set(
      needs.filter {
        start < Self.later(stateSince[$0.state], by: $0.lookbackNanos)
          || start < Self.later(rowsSince, by: $0.lookbackNanos)
      }.map(\.state))
  }

  /// Every window that starts before `time` has ended.
  mutating func forget(before time: Int64) {
    if !lengths.isEmpty, mixedUntil <= time {
      lengths = [:]
      mixedNanos = 0
      mixedUntil = beforeAllTime
    }
  }

  /// A time rounded up; one outside of all time as it is.
  static func ceiling(_ time: Int64, of step: Int64) -> Int64 {
    storedTimes.contains(time) ? floorToMultiple(time - 1, of: step) + step : time
  }

  private static func later(_ time: Int64, by nanos: Int64) -> Int64 {
    time == beforeAllTime || time == afterAllTime ? time : time + nanos
  }
}

private func greatestCommonDivisor(_ a: Int64, _ b: Int64) -> Int64 {
  b == 0 ? a : greatestCommonDivisor(b, a % b)
}
