#if canImport(Glibc)
  import Glibc
#endif

/// What travels between workers.
enum Message: Sendable {
  /// Finished panes of a partition, and its watermark behind them.
  case panes([(exchange: Int, pane: PanePartial)], source: Int, partition: Int, watermark: Int64)
  /// Rows of windows for the next level.
  case rows(exchange: Int, RowsChunk)
  /// A shard has emitted everything that goes to this level of the flow, and to flows that read the one before, up to the
  /// watermark.
  case shardWatermark(flow: Int, level: Int, shard: Int, watermark: Int64)
  /// The sender has sent everything of this level that lies before the barrier.
  case barrier(epoch: UInt64, level: Int)
}

/// A message and the worker that sent it.
struct Envelope: Sendable {
  var sender: Int
  var message: Message
}

/// A worker's queue of messages: many senders, one receiver, first in first out for each sender.
///
/// Sending never blocks, since two full inboxes would wait for each other; instead a worker does not read on
/// while some inbox is over `messagesMax`, and that bounds what can be in flight to one batch a worker more.
final class Inbox: @unchecked Sendable {
  // @unchecked: `messages` is guarded by `mutex`.
  /// Most messages before sources are paused.
  static let messagesMax = 4_096

  private var messages: [Envelope] = []
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
    pthread_mutex_init(mutex, nil)
    // By the clock that nobody sets: a wall clock that is put back would stretch a wait by as much.
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  func send(_ message: Message, from sender: Int) {
    pthread_mutex_lock(mutex)
    messages.append(Envelope(sender: sender, message: message))
    pthread_cond_signal(condition)
    pthread_mutex_unlock(mutex)
  }

  /// Wakes the receiver without a message.
  func wake() {
    pthread_mutex_lock(mutex)
    pthread_cond_signal(condition)
    pthread_mutex_unlock(mutex)
  }

  /// Takes everything that is there.
  func take() -> [Envelope] {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    if messages.isEmpty { return [] }
    let taken = messages
    messages = []
    return taken
  }

  var count: Int {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return messages.count
  }

  /// Waits for a message or for the time to pass.
  func wait(nanos: Int) {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    guard messages.isEmpty else { return }
    var deadline = timespec()
    clock_gettime(CLOCK_MONOTONIC, &deadline)
    deadline.tv_nsec += nanos
    deadline.tv_sec += deadline.tv_nsec / 1_000_000_000
    deadline.tv_nsec %= 1_000_000_000
    pthread_cond_timedwait(condition, mutex, &deadline)
  }
}

/// Wall clock in nanoseconds since the epoch.
public func wallClockNanos() -> Int64 {
  var now = timespec()
  clock_gettime(CLOCK_REALTIME, &now)
  return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
}

/// A clock that only runs forward, for measuring.
public func monotonicNanos() -> Int64 {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
}

/// A thread that can be joined.
final class WorkerThread: @unchecked Sendable {
  // @unchecked: touched by who starts and joins it only.
  private var handle = pthread_t()
  private var isRunning = false
  private var isJoined = false
  private final class Body {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  init(_ run: @escaping @Sendable () -> Void) throws(SourceFailure) {
    let body = Unmanaged.passRetained(Body(run))
    let status = pthread_create(
      &handle, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, body.toOpaque())
    guard status == 0 else {
      body.release()
      throw SourceFailure("cannot start a worker thread: \(String(cString: strerror(status)))")
    }
    isRunning = true
  }

  /// Waits for the thread's end; called at most once.
  func join() {
    pthread_join(handle, nil)
    isJoined = true
  }

  /// A thread that nobody waits for gives its stack back by itself.
  deinit { if isRunning, !isJoined { pthread_detach(handle) } }
}

/// Sleeps on the calling thread.
public func sleepMillis(_ millis: Int) { usleep(UInt32(clamping: millis * 1_000)) }
