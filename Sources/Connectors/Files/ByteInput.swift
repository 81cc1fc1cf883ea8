import CZlib
import CZstd
import Glibc
import Runtime

/// The bytes of a file or of standard input, uncompressed on the way. What a file is packed with is told by
/// its first bytes, not by its name.
final class ByteInput {
  private enum Packing {
    case plain
    case gzip(GzipStream)
    case zstd(ZstdStream)
  }

  let path: String
  private let descriptor: Int32
  private let ownsDescriptor: Bool
  /// Size on disk, where the input is a file.
  let bytesTotal: Int?
  /// Bytes taken from the disk so far, packed as they are.
  private(set) var bytesConsumed = 0
  var isRegularFile: Bool { bytesTotal != nil }

  private var packing = Packing.plain
  private let packed: UnsafeMutablePointer<UInt8>
  private static let packedBytes = 128 * 1024
  private var packedStart = 0
  private var packedEnd = 0
  private var isAtEnd = false

  /// `path` is a file, or `-` for standard input.
  init(path: String) throws(SourceFailure) {
    self.path = path
    if path == "-" {
      descriptor = STDIN_FILENO
      ownsDescriptor = false
    } else {
      descriptor = open(path, O_RDONLY | O_CLOEXEC)
      ownsDescriptor = true
      if descriptor < 0 { throw SourceFailure("cannot open \(path): \(errnoText())") }
    }
    var status = stat()
    let known = fstat(descriptor, &status) == 0
    if known && (status.st_mode & S_IFMT) == S_IFDIR {
      if ownsDescriptor { Glibc.close(descriptor) }
      throw SourceFailure("cannot read \(path): it is a directory")
    }
    bytesTotal = known && (status.st_mode & S_IFMT) == S_IFREG ? Int(status.st_size) : nil
    packed = .allocate(capacity: Self.packedBytes)
    packed.initialize(repeating: 0, count: Self.packedBytes)
    try recognise()
  }

  deinit {
    if ownsDescriptor { Glibc.close(descriptor) }
    packed.deallocate()
  }

  private func recognise() throws(SourceFailure) {
    while packedEnd < 4 && !isAtEnd { try refill() }
    if packedEnd >= 2 && packed[0] == 0x1f && packed[1] == 0x8b {
      packing = .gzip(try GzipStream(path: path))
    } else if packedEnd >= 4 && packed[1] == 0xb5 && packed[2] == 0x2f && packed[3] == 0xfd
      && packed[0] == 0x28
    {
      packing = .zstd(try ZstdStream(path: path))
    }
  }

  /// Fills `buffer` with up to `count` bytes; 0 at the end. May return fewer before it.
  func read(into buffer: UnsafeMutablePointer<UInt8>, count: Int) throws(SourceFailure) -> Int {
    guard count > 0 else { return 0 }
    while true {
      if packedStart == packedEnd && !isAtEnd {
        // Nothing is left over: a plain file is read straight to where it is wanted.
        if case .plain = packing { return try readDescriptor(into: buffer, count: count) }
        packedStart = 0
        packedEnd = 0
        try refill()
      }
      var input = UnsafeBufferPointer(start: packed + packedStart, count: packedEnd - packedStart)
      let before = input.count
      let produced: Int
      switch packing {
      case .plain:
        produced = min(count, input.count)
        buffer.update(from: packed + packedStart, count: produced)
        packedStart += produced
        return produced
      case .gzip(let stream):
        produced = try stream.unpack(&input, isLast: isAtEnd, into: buffer, count: count)
      case .zstd(let stream):
        produced = try stream.unpack(&input, isLast: isAtEnd, into: buffer, count: count)
      }
      packedStart += before - input.count
      if produced > 0 { return produced }
      if packedStart == packedEnd && isAtEnd { return 0 }
    }
  }

  private func refill() throws(SourceFailure) {
    packedEnd += try readDescriptor(into: packed + packedEnd, count: Self.packedBytes - packedEnd)
  }

  private func readDescriptor(into buffer: UnsafeMutablePointer<UInt8>, count: Int)
    throws(SourceFailure) -> Int
  {
    if isAtEnd { return 0 }
    while true {
      let got = Glibc.read(descriptor, buffer, count)
      if got > 0 {
        bytesConsumed += got
        return got
      }
      if got == 0 {
        isAtEnd = true
        return 0
      }
      if errno != EINTR { throw SourceFailure("cannot read \(path): \(errnoText())") }
    }
  }
}

/// A gzip file: one member or several in a row.
private final class GzipStream {
  private let path: String
  private let stream: UnsafeMutablePointer<z_stream>
  private var isInMember = true
  private var hasMember = false

  init(path: String) throws(SourceFailure) {
    self.path = path
    stream = .allocate(capacity: 1)
    stream.initialize(to: z_stream())
    // 15 bits of window, +16: gzip headers only.
    let size = Int32(MemoryLayout<z_stream>.size)
    guard inflateInit2_(stream, 15 + 16, ZLIB_VERSION, size) == Z_OK else {
      stream.deallocate()
      throw SourceFailure("cannot read \(path): zlib does not start")
    }
  }

  deinit {
    inflateEnd(stream)
    stream.deallocate()
  }

  func unpack(
    _ input: inout UnsafeBufferPointer<UInt8>, isLast: Bool, into buffer: UnsafeMutablePointer<UInt8>,
    count: Int
  ) throws(SourceFailure) -> Int {
    if !isInMember {
      // Blocks of zeros may pad the end (tapes, tar); anything else must be a further member.
      while let first = input.first, first == 0 { input = UnsafeBufferPointer(rebasing: input.dropFirst()) }
      guard let first = input.first else { return 0 }
      guard first == 0x1f else {
        throw SourceFailure("\(path): there is something else behind the gzip data")
      }
      inflateReset(stream)
      isInMember = true
    }
    if input.isEmpty {
      if isLast && isInMember { throw SourceFailure("\(path): the gzip data is cut short") }
      return 0
    }
    stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
    stream.pointee.avail_in = UInt32(input.count)
    stream.pointee.next_out = buffer
    let space = min(count, Int(Int32.max))
    stream.pointee.avail_out = UInt32(space)
    let status = inflate(stream, Z_NO_FLUSH)
    let produced = space - Int(stream.pointee.avail_out)
    input = UnsafeBufferPointer(rebasing: input.suffix(Int(stream.pointee.avail_in)))
    switch status {
    case Z_STREAM_END: isInMember = false
    case Z_OK, Z_BUF_ERROR: break
    default: throw SourceFailure("\(path): the gzip data is damaged")
    }
    return produced
  }
}

/// A zstd file: one frame or several in a row.
private final class ZstdStream {
  private let path: String
  private let context: OpaquePointer
  private var isInFrame = true

  init(path: String) throws(SourceFailure) {
    self.path = path
    guard let context = ZSTD_createDCtx() else {
      throw SourceFailure("cannot read \(path): zstd does not start")
    }
    self.context = context
  }

  deinit { ZSTD_freeDCtx(context) }

  func unpack(
    _ input: inout UnsafeBufferPointer<UInt8>, isLast: Bool, into buffer: UnsafeMutablePointer<UInt8>,
    count: Int
  ) throws(SourceFailure) -> Int {
    var source = ZSTD_inBuffer(src: input.baseAddress, size: input.count, pos: 0)
    var target = ZSTD_outBuffer(dst: buffer, size: count, pos: 0)
    if !input.isEmpty || isInFrame {
      let status = ZSTD_decompressStream(context, &target, &source)
      if ZSTD_isError(status) != 0 {
        throw SourceFailure(
          "\(path): the zstd data is damaged (\(String(cString: ZSTD_getErrorName(status))))")
      }
      isInFrame = status != 0
    }
    if input.isEmpty && target.pos == 0 && isLast && isInFrame {
      throw SourceFailure("\(path): the zstd data is cut short")
    }
    input = UnsafeBufferPointer(rebasing: input.suffix(input.count - source.pos))
    return target.pos
  }
}

/// What `errno` says, for a message.
func errnoText() -> String { String(cString: strerror(errno)) }
