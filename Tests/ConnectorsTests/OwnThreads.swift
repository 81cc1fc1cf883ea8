import Foundation
import Testing

/// Runs each test case on a thread of its own. Tests that wait for brokers would otherwise hold the few threads that all
/// tests share, and take turns where they could wait side by side.
struct OwnThreads: SuiteTrait, TestTrait, TestScoping {
  let isRecursive = true

  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    try await withTaskExecutorPreference(ThreadExecutor()) { try await function() }
  }

  /// The task stays what it is, so that an expectation that fails is still the test's.
  private final class ThreadExecutor: TaskExecutor {
    func enqueue(_ job: consuming ExecutorJob) {
      let job = UnownedJob(job)
      Thread { job.runSynchronously(on: self.asUnownedTaskExecutor()) }.start()
    }
  }
}

extension Trait where Self == OwnThreads {
  static var ownThreads: Self { Self() }
}
