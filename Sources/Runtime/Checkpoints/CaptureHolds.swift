import Synchronization

/// How many captures still need something as it is. Its owner copies it before it changes it while that is any;
/// once all of them have been encoded it is written on in place.
public final class CaptureHolds: Sendable {
  private let count = Atomic<Int>(0)

  public init() {}

  /// Whether a capture is yet to be encoded. What it read by then lies before what the owner writes after a no.
  public var isHeld: Bool { count.load(ordering: .acquiring) > 0 }

  fileprivate func begin() { count.wrappingAdd(1, ordering: .relaxed) }
  fileprivate func end() { count.wrappingSubtract(1, ordering: .releasing) }
}

/// A capture's claim on something; ends with `release`, at the latest when the capture is dropped.
public final class CaptureHold: Sendable {
  private let holds: CaptureHolds
  private let isReleased = Atomic<Bool>(false)

  /// On the owner's thread.
  public init(_ holds: CaptureHolds) {
    self.holds = holds
    holds.begin()
  }

  deinit { release() }

  /// On any thread, when everything has been read.
  public func release() {
    if !isReleased.exchange(true, ordering: .relaxed) { holds.end() }
  }
}
