import Glibc
import Planner

/// A rule file as it lies on the disk.
struct RuleFileBytes {
  /// As diagnostics show it.
  let path: String
  /// Below the path that was asked for: the same wherever a rule directory lies.
  let name: String
  let bytes: [UInt8]
}

/// Reads the rule files that paths name: a file itself, or every `.rules` file in a directory and below, by
/// name.
///
/// A file that is reached twice is read once. Throws an environment failure for what cannot be read, and for
/// paths that hold no rule file at all.
func readRuleFiles(_ paths: [String]) throws(CommandFailure) -> [RuleFileBytes] {
  var files: [RuleFileBytes] = []
  for file in try findRuleFiles(paths) {
    files.append(RuleFileBytes(path: file.path, name: file.name, bytes: try readWhole(file.path)))
  }
  return files
}

/// Where the rule files are that paths name, each once. Throws as `readRuleFiles` does.
func findRuleFiles(_ paths: [String]) throws(CommandFailure) -> [(path: String, name: String)] {
  var files: [(path: String, name: String)] = []
  var seen: Set<String> = []
  for path in paths {
    for file in try ruleFilePaths(below: path, depth: 0, isNamed: true) where seen.insert(file).inserted {
      // A file that was named itself goes by its last component.
      let isBelow = file.utf8.count > path.utf8.count
      let name = isBelow ? file.dropFirst(path.count) : file.split(separator: "/").last ?? file[...]
      files.append((file, String(name.drop { $0 == "/" })))
    }
  }
  if files.isEmpty {
    throw .environment("no .rules file in \(paths.joined(separator: ", "))")
  }
  return files
}

/// What the text of a rule set is known by, in checkpoints and logs: 16 hexadecimal digits of its files' names and bytes,
/// wherever they lie and in whatever order they were named.
func ruleRevision(_ files: [RuleFileBytes]) -> String {
  let hashes = files.map { file in
    var hash = StableHash(file.name)
    hash.add(counted: file.bytes)
    return hash.digits
  }
  var hash = StableHash()
  for digits in hashes.sorted() { hash.add(digits) }
  return hash.digits
}

/// Deeper than any rule repository; a loop of symbolic links ends here.
private let directoryDepthMax = 32

private func ruleFilePaths(
  below path: String, depth: Int, isNamed: Bool
) throws(CommandFailure) -> [String] {
  var status = stat()
  guard stat(path, &status) == 0 else {
    throw .environment("cannot read \(path): \(errorText(errno))")
  }
  guard status.st_mode & S_IFMT == S_IFDIR else {
    return isNamed || path.hasSuffix(".rules") ? [path] : []
  }
  guard depth < directoryDepthMax else {
    throw .environment("\(path) is nested deeper than \(directoryDepthMax) directories")
  }
  let trimmed = path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
  var found: [String] = []
  // Hidden ones are an editor's, or git's.
  for name in try fileNames(in: path) where !name.hasPrefix(".") {
    found += try ruleFilePaths(below: "\(trimmed)/\(name)", depth: depth + 1, isNamed: false)
  }
  return found
}

/// The names in a directory, sorted, without `.` and `..`. Throws an environment failure.
func fileNames(in path: String) throws(CommandFailure) -> [String] {
  guard let directory = opendir(path) else {
    throw .environment("cannot read \(path): \(errorText(errno))")
  }
  defer { closedir(directory) }
  var names: [String] = []
  while let entry = readdir(directory) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name != ".", name != ".." { names.append(name) }
  }
  return names.sorted()
}

/// No rule file is that long; the compiler says what it thinks of one that is longer than it takes.
private let wholeFileBytesMax = 64 << 20

/// All bytes of a file. Throws an environment failure.
func readWhole(_ path: String) throws(CommandFailure) -> [UInt8] {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { throw .environment("cannot read \(path): \(errorText(errno))") }
  defer { close(descriptor) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 1 << 16)
  while bytes.count <= wholeFileBytesMax {
    let count = read(descriptor, &buffer, buffer.count)
    if count < 0, errno == EINTR { continue }
    if count < 0 { throw .environment("cannot read \(path): \(errorText(errno))") }
    if count == 0 { return bytes }
    bytes.append(contentsOf: buffer[..<count])
  }
  throw .environment("\(path) is longer than \(wholeFileBytesMax >> 20) MiB")
}
