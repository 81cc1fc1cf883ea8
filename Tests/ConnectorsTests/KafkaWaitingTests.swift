import Testing

@testable import Connectors

@Suite struct KafkaWaitingTests {
  @Test func aClockThatIsPutBackIsNoticedOnce() {
    let second: Int64 = 1_000_000_000
    var watch = WallClockWatch()
    var found: [Bool] = []
    // Wall clock and monotonic clock: in step, slewed, put forward, put back, in step again, put back a little.
    for (wall, monotonic) in [
      (1_000 * second, 5 * second), (1_001 * second, 6 * second), (1_002 * second - second / 10, 7 * second),
      (9_000 * second, 8 * second), (1_004 * second, 9 * second), (1_005 * second, 10 * second),
      (1_005 * second + second / 2, 11 * second),
    ] { found.append(watch.hasGoneBack(wallNanos: wall, monotonicNanos: monotonic)) }
    #expect(found == [false, false, false, false, true, false, true])
  }

  @Test func asksUntilThereIsAnAnswer() {
    var questions = 0
    let answer = awaiting(millis: 60_000) { () -> Int? in
      questions += 1
      return questions == 4 ? 42 : nil
    }
    #expect(answer == 42 && questions == 4)
    // Without time it asks once.
    questions = 0
    #expect(
      awaiting(millis: 0) { () -> Int? in
        questions += 1
        return nil
      } == nil)
    #expect(questions == 1)
  }
}
