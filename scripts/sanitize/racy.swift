// Two threads and no lock: what ThreadSanitizer must report. scripts/sanitize.sh asks it first, so that silence about the
// tests means something.
import Glibc
import Synchronization

final class Counter: @unchecked Sendable {
  let lock = Mutex(0)
  var plain = 0
}

let counter = Counter()
var threads: [pthread_t] = []
for _ in 0..<2 {
  var thread = pthread_t()
  pthread_create(
    &thread, nil,
    { _ in
      for _ in 0..<100_000 {
        counter.lock.withLock { $0 += 1 }
        if CommandLine.arguments.contains("race") { counter.plain += 1 }
      }
      return nil
    }, nil)
  threads.append(thread)
}
for thread in threads { pthread_join(thread, nil) }
print(counter.lock.withLock { $0 })
