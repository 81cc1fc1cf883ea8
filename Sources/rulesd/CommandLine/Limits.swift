import Operators

/// `--key-limit N`, or the default.
func keyLimit(_ arguments: ParsedArguments) throws(CommandFailure) -> Int {
  try arguments.integer("key-limit", 1...100_000_000) ?? PaneAggregation.keyLimitDefault
}

/// The bytes that an option such as `--memory-limit 2GiB` says; nil when it is not given.
func byteCount(_ option: String, _ arguments: ParsedArguments) throws(CommandFailure) -> Int? {
  guard let text = arguments.text(option) else { return nil }
  guard let bytes = byteCount(text), bytes > 0 else {
    throw .usage("--\(option): `\(text)` is not a size", hint: "write 512MiB, 2GiB or a number of bytes")
  }
  return bytes
}

/// Bytes of `512MiB`, `2GB`, `4096`; nil for anything else or beyond 8 EiB.
func byteCount(_ text: String) -> Int? {
  let units: [(suffix: String, bytes: Int)] = [
    ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("kB", 1_000), ("MB", 1_000_000),
    ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("B", 1), ("", 1),
  ]
  let digits = text.prefix { $0.isASCII && $0.isNumber }
  guard let count = Int(digits), let unit = units.first(where: { $0.suffix == text.dropFirst(digits.count) }) else {
    return nil
  }
  let (bytes, overflows) = count.multipliedReportingOverflow(by: unit.bytes)
  return overflows ? nil : bytes
}
