import Runtime

/// Opens the place where a group keeps its checkpoints: a directory's path, `file:PATH`, or `postgresql://…`. Nothing
/// is touched before the first call. Throws `CheckpointFailure` for what is none of these.
public func openCheckpointStore(_ location: String, group: String) throws(CheckpointFailure) -> any CheckpointArchive {
  for scheme in ["postgresql://", "postgres://"] where location.hasPrefix(scheme) {
    return try PostgresCheckpointStore(uri: location, group: group)
  }
  var path = location
  if location.hasPrefix("file:") {
    path = String(location.dropFirst("file:".count))
    // `file:///var/lib` has an empty host.
    if path.hasPrefix("///") { path = String(path.dropFirst(2)) }
  }
  guard !path.isEmpty, !path.contains("://"), !path.hasPrefix("//") else {
    // Not repeated: it may be an address with a password after a mistyped scheme.
    throw CheckpointFailure("a checkpoint store is a directory's path, file:PATH, or postgresql://USER@HOST/DATABASE")
  }
  return try DirectoryCheckpointStore(path: path, group: group)
}
