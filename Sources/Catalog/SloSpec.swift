/// Over which time an objective holds.
public enum SloPeriod: Sendable, Hashable {
  /// The last so many nanoseconds.
  case rolling(nanos: Int64)
  /// From the beginning of the present day, week … on, in UTC.
  case calendar(SloCalendar)
}

/// Calendar periods, in UTC.
public enum SloCalendar: String, Sendable, Hashable, CaseIterable {
  case day
  /// Begins on Monday (ISO 8601).
  case week
  case month
  case quarter

  private static let dayNanos: Int64 = 86_400_000_000_000

  /// The period that holds a time, in nanoseconds since the epoch, within the event times that the engine takes.
  public func bounds(containing time: Int64) -> Range<Int64> {
    let day = time >= 0 ? time / Self.dayNanos : (time + 1) / Self.dayNanos - 1
    let days: (first: Int64, next: Int64)
    switch self {
    case .day: days = (day, day + 1)
    case .week:
      // The epoch was a Thursday.
      let sinceMonday = ((day + 3) % 7 + 7) % 7
      days = (day - sinceMonday, day - sinceMonday + 7)
    case .month, .quarter:
      let (year, month) = Self.yearAndMonth(day)
      let length: Int64 = self == .month ? 1 : 3
      let first = (month - 1) / length * length
      days = (Self.firstDay(year, first), Self.firstDay(year, first + length))
    }
    return days.first * Self.dayNanos..<days.next * Self.dayNanos
  }

  /// Of a day since the epoch, by Howard Hinnant's civil_from_days; months from 1.
  private static func yearAndMonth(_ day: Int64) -> (year: Int64, month: Int64) {
    let shifted = day + 719_468
    let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
    let dayOfEra = shifted - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month)
  }

  /// The day on which a month begins, counted from 0 in its year; 12 is January of the next.
  private static func firstDay(_ year: Int64, _ month: Int64) -> Int64 {
    let year = year + month / 12
    let month = month % 12 + 1
    let y = month <= 2 ? year - 1 : year
    let era = (y >= 0 ? y : y - 399) / 400
    let yearOfEra = y - era * 400
    let shiftedMonth = month > 2 ? month - 3 : month + 9
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + (153 * shiftedMonth + 2) / 5
    return era * 146_097 + dayOfEra - 719_468
  }
}

/// A column that an SLO has for each key at each evaluation, behind the keys.
public enum SloColumn: Sendable, Hashable {
  /// Good events, and all events, in the objective's period.
  case good, total
  /// The share of bad events in the period; null without events.
  case errorRatio
  /// What is left of the error budget as a share of it: 1 when nothing is spent, negative when it is overspent.
  case budgetLeft
  /// How long the budget lasts at the burn rate of the shortest long window; null while that burns nothing.
  case exhaustsIn
  /// The start of the first evaluation that had events of the key.
  case since
  /// Until the calendar period ends.
  case periodLeft
  /// The burn rate over a window of so many nanoseconds; null without events in it.
  case burn(nanos: Int64)
  /// Events in that window.
  case events(nanos: Int64)

  public var type: ValueType {
    switch self {
    case .good, .total, .events: .float
    case .errorRatio, .budgetLeft: .ratio
    case .exhaustsIn, .periodLeft: .duration
    case .since: .timestamp
    case .burn: .float
    }
  }

  public var isNullable: Bool {
    switch self {
    case .good, .total, .events, .since, .periodLeft: false
    case .errorRatio, .budgetLeft, .exhaustsIn, .burn: true
    }
  }
}

/// What the checker holds an SLO to.
public enum SloLimits {
  private static let second: Int64 = 1_000_000_000
  /// Between two evaluations.
  public static let stepNanos: ClosedRange<Int64> = 10 * second...86_400 * second
  public static let stepNanosDefault = 60 * second
  /// Of a rolling objective.
  public static let periodNanosMax: Int64 = 90 * 86_400 * second
  /// Most evaluations in the longest burn window: each key keeps two counts for every one, some 3 bytes. Two weeks of minutes.
  public static let stepsMax: Int64 = 20_160
  /// Most windows of one burn condition, and most conditions of one severity.
  public static let windowsMax = 4
  public static let conditionsMax = 16
}

/// The share of events that may be bad: 0.001 for 0.999, to twelve decimals, since 1 - 0.999 is not 0.001 in binary.
public func sloBudget(_ objective: Double) -> Double { ((1 - objective) * 1e12).rounded() / 1e12 }
