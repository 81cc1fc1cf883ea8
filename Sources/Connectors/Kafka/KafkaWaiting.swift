import CRdkafka
import Glibc
import Synchronization

// librdkafka waits on C11 conditions, which know no clock but the wall clock: when that is put back by an hour, whoever
// waits in `rd_kafka_consumer_poll` for 20 ms waits for an hour more, unless something comes. So our threads ask without
// waiting and sleep by themselves, and librdkafka's are woken when the clock has gone back.

/// Asks until there is an answer; nil after `millis` without one. Sleeps in between, ever longer, from `napMicros` to
/// 8 ms: what comes meanwhile is noticed that much later.
func awaiting<T>(millis: Int64, napMicros: UInt32 = 1_000, _ ask: () throws -> T?) rethrows -> T? {
  let deadline = monotonicNanos() + millis * 1_000_000
  var nap = napMicros
  while true {
    if let answer = try ask() { return answer }
    let leftMicros = (deadline - monotonicNanos()) / 1_000
    guard leftMicros > 0 else { return nil }
    usleep(UInt32(min(Int64(nap), leftMicros)))
    nap = min(nap * 2, 8_000)
  }
}

/// Notices when the wall clock is put back.
struct WallClockWatch {
  /// The wall clock less the monotonic one; both drift apart a little where NTP slews.
  private var distance: Int64?
  /// Less is no jump: librdkafka's waits are longer by that much.
  private static let jumpNanos: Int64 = 200_000_000

  /// Whether it has been put back since it was asked last.
  mutating func hasGoneBack(wallNanos: Int64, monotonicNanos: Int64) -> Bool {
    let now = wallNanos - monotonicNanos
    defer { distance = now }
    return distance.map { now < $0 - Self.jumpNanos } ?? false
  }
}

func wallNanos() -> Int64 {
  var time = timespec()
  clock_gettime(CLOCK_REALTIME, &time)
  return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}
