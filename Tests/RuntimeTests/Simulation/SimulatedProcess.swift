@testable import Runtime

extension SimulatedWorld {
  final class Machine {
    var process: Process?
    var startAt = 0
    /// Stands still until then.
    var hangsUntil = 0
    let number: Int
    init(_ number: Int) { self.number = number }
  }

  final class Process {
    let coordinator: Coordinator
    let executor: QueuedExecutor
    let life: Life
    let files: MortalFileSystem
    let sources: SourceList
    /// It is killed then.
    var doomedAt = Int.max
    /// Workers that get no processor, until then.
    var starved: Set<Int> = []
    var starvedUntil = 0
    /// The last barrier that was looked at.
    var seenEpoch: UInt64 = 0
    var hasRun = false
    /// Told of other rules, and not running with them yet.
    var isReloading = false
    init(
      _ coordinator: Coordinator, _ executor: QueuedExecutor, _ life: Life, _ files: MortalFileSystem,
      _ sources: SourceList
    ) {
      self.coordinator = coordinator
      self.executor = executor
      self.life = life
      self.files = files
      self.sources = sources
    }
  }

  final class SourceList { var all: [MortalSource] = [] }
}
