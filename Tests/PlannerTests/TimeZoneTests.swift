import Catalog
import Foundation
import Testing

/// Clocks on the wall, against Foundation's, which has a copy of the tz database of its own.
@Suite struct TimeZoneTests {
  private static let zones = [
    "Europe/Berlin", "Europe/London", "America/New_York", "America/St_Johns", "America/Santiago", "Asia/Kolkata", "Asia/Tokyo",
    "Australia/Sydney", "Australia/Lord_Howe", "Pacific/Auckland", "Etc/GMT+5", "UTC",
  ]

  @Test(arguments: zones) func hasTheOffsetsOfFoundation(_ name: String) throws {
    let zone = try #require(TimeZoneRules.load(name))
    let reference = try #require(TimeZone(identifier: name))
    // Each fifth hour from 1975 to 2036, where both go by the same announcements, and around each change.
    var seconds: Int64 = 157_766_400
    var changes = 0
    var last = zone.offset(atUTC: seconds)
    while seconds < 2_082_844_800 {
      let offset = zone.offset(atUTC: seconds)
      let expected = Int64(reference.secondsFromGMT(for: Date(timeIntervalSince1970: Double(seconds))))
      #expect(offset == expected, "\(name) at \(seconds)")
      if offset != expected { return }
      if offset != last { changes += 1 }
      last = offset
      seconds += 5 * 3_600
    }
    #expect(changes > 0 || ["Asia/Kolkata", "Asia/Tokyo", "Etc/GMT+5", "UTC"].contains(name))
  }

  /// A time that clocks show once is found again; one that they show twice is the first; one that they skip, the skip's end.
  @Test(arguments: zones) func localTimesAreFoundAgain(_ name: String) throws {
    let zone = try #require(TimeZoneRules.load(name))
    for day in stride(from: Int64(14_000), to: 24_000, by: 1) {
      for hour: Int64 in [0, 1, 2, 3, 12, 23] {
        let local = day * 86_400 + hour * 3_600 + 900
        let moment = zone.utc(local: local)
        let shown = moment + zone.offset(atUTC: moment)
        if shown == local {
          // No earlier moment shows it.
          for earlier in stride(from: Int64(1_800), through: 7_200, by: 1_800) {
            let other = moment - earlier
            #expect(other + zone.offset(atUTC: other) != local, "\(name) \(local)")
          }
        } else {
          #expect(shown > local && shown - local <= 7_200, "\(name) \(local)")
          #expect(moment - 1 + zone.offset(atUTC: moment - 1) < local, "\(name) \(local)")
        }
      }
    }
  }

  @Test func unknownNamesAreNone() {
    for name in ["", "Europe/Nowhere", "../../etc/passwd", "/etc/passwd", "Europe", "Europe/Berlin.", "posixrules\u{0}", String(repeating: "a", count: 100)] {
      #expect(TimeZoneRules.load(name) == nil, "\(name)")
    }
  }

  /// Moments at which the window is open or shut, around the changes of clocks in Berlin in 2026.
  @Test(arguments: [
    // Clocks skip 02:00 to 03:00 on 29 March: 01:00 UTC is 03:00.
    ("2026-03-29T00:59:59Z", false), ("2026-03-29T01:00:00Z", true), ("2026-03-29T02:59:59Z", true), ("2026-03-29T03:00:00Z", false),
    // 02:30 comes twice on 25 October, first at 00:30 UTC.
    ("2026-10-25T00:29:59Z", false), ("2026-10-25T00:30:00Z", true), ("2026-10-25T02:29:59Z", true), ("2026-10-25T02:30:00Z", false),
    // Sundays of winter and summer; not a Saturday.
    ("2026-11-22T01:30:00Z", true), ("2026-07-05T00:30:00Z", true), ("2026-07-05T02:30:00Z", false), ("2026-11-21T01:30:00Z", false),
  ])
  func everySundayAtHalfPastTwo(_ text: String, _ isOpen: Bool) throws {
    let zone = try #require(TimeZoneRules.load("Europe/Berlin"))
    let schedule = MaintenanceSchedule.weekly(
      .init(days: 0x40, startSeconds: 9_000, lengthNanos: 7_200_000_000_000, zone: zone))
    let nanos = Int64(try #require(ISO8601DateFormatter().date(from: text)).timeIntervalSince1970) * 1_000_000_000
    #expect(schedule.isOpen(at: nanos) == isOpen)
  }

  /// One that lasts for days, over the end of a week and the begin of time.
  @Test func longWindowsReachOverDays() {
    let day: Int64 = 86_400_000_000_000
    let weekly = MaintenanceSchedule.weekly(.init(days: 0x20, startSeconds: 43_200, lengthNanos: 3 * day, zone: .utc))
    // 1970-01-03 was a Saturday.
    let saturday = 2 * day + day / 2
    #expect(!weekly.isOpen(at: 0) && !weekly.isOpen(at: saturday - 1))
    #expect(weekly.isOpen(at: saturday) && weekly.isOpen(at: saturday + 3 * day - 1) && !weekly.isOpen(at: saturday + 3 * day))
  }
}
