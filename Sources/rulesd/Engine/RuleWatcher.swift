import Glibc

/// Notices that the rule files that `run` was given have changed: their bytes, which there are, or where a symbolic link
/// on the way leads, as Kubernetes (`..data`) and git-sync swap whole directories.
///
/// Looked at once a second, on the control thread. inotify would tell sooner, but not more: it does not follow symbolic
/// links, is silent on network file systems and some overlays, needs a watch for every directory that may come and go,
/// and what it tells must be read again anyhow. A poll is a `stat` for each file.
///
/// A change is told when the files have been still for one more look, so that a deploy that writes ten files is one
/// change. What counts then is the bytes: a file that was only touched, or that was changed and changed back, is none.
/// Each content is told once, whether or not it compiles.
struct RuleWatcher {
  /// How often `poll` is to be called.
  static let intervalNanos: Int64 = 1_000_000_000

  /// What can be known of a file without reading it. Any write changes one of these; what is written at the same moment as
  /// a look at it is seen by the next, one interval later, since only then it is read.
  private struct Trace: Equatable {
    /// Where all links lead.
    var place: String
    var name: String
    var device: UInt
    var inode: UInt
    var size: Int
    var modified: Int64
    /// Set by the system alone: an edit that sets back the time of modification shows here.
    var changed: Int64
  }

  let paths: [String]
  /// The content that was told last.
  private(set) var revision: String
  /// Why the files cannot be read now; nil when they can. A directory that is being swapped has such moments.
  private(set) var problem: String?
  /// The look before.
  private var last: [Trace]?
  /// The look at which the bytes were read last.
  private var settled: [Trace]?

  /// `revision` is what runs (`LoadedRules.revision`): what has changed since it was read is a change, too.
  init(paths: [String], revision: String) {
    self.paths = paths
    self.revision = revision
  }

  /// Looks once. The revision of what is there now, when that is still, can be read, and has not been told yet.
  ///
  /// Who loads the files then may find yet another content; the watcher tells of that as well, one look later.
  mutating func poll() -> String? {
    let traces: [Trace]
    do {
      traces = try Self.traces(paths)
    } catch {
      problem = error.message
      last = nil
      return nil
    }
    defer { last = traces }
    if traces == settled {
      problem = nil
      return nil
    }
    guard traces == last else { return nil }
    let now: String
    do {
      now = ruleRevision(try readRuleFiles(paths))
      // Swapped while it was read: what was read may be of both.
      guard try Self.traces(paths) == traces else { return nil }
    } catch {
      problem = error.message
      return nil
    }
    problem = nil
    settled = traces
    if now == revision { return nil }
    revision = now
    return now
  }

  private static func traces(_ paths: [String]) throws(CommandFailure) -> [Trace] {
    var traces: [Trace] = []
    for file in try findRuleFiles(paths) {
      var status = stat()
      guard stat(file.path, &status) == 0, let place = realpath(file.path, nil) else {
        throw .environment("cannot read \(file.path): \(errorText(errno))")
      }
      defer { free(place) }
      traces.append(
        Trace(
          place: String(cString: place), name: file.name, device: UInt(status.st_dev), inode: UInt(status.st_ino),
          size: Int(status.st_size), modified: nanos(status.st_mtim), changed: nanos(status.st_ctim)))
    }
    return traces
  }

  private static func nanos(_ time: timespec) -> Int64 {
    // A file system may hold any number of seconds.
    Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec)
  }
}
