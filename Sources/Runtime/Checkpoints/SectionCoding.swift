import CZstd

/// Makes stored bytes of what tasks captured: a zstd frame a section, level 1 (state is written every few seconds and
/// seldom read). One context serves all sections of a checkpoint; memory does not grow with the state.
final class SectionCompressor {
  private let context: OpaquePointer
  private let output: UnsafeMutableRawBufferPointer

  init() throws(CheckpointFailure) {
    guard let context = ZSTD_createCCtx() else { throw CheckpointFailure("out of memory for zstd") }
    self.context = context
    output = .allocate(byteCount: ZSTD_CStreamOutSize(), alignment: 16)
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 1)
  }

  deinit {
    ZSTD_freeCCtx(context)
    output.deallocate()
  }

  /// Hands the stored bytes on in pieces; returns how many bytes they stand for.
  func compress(
    _ capture: any StateCapture, _ take: @escaping (UnsafeRawBufferPointer) throws -> Void
  ) throws -> Int {
    ZSTD_CCtx_reset(context, ZSTD_reset_session_only)
    // One chunk is held back: zstd then knows of a small section that it is one, and takes smaller tables for it.
    var held: [UInt8] = []
    let writer = StateWriter { chunk in
      try self.feed(held, isLast: false, take)
      held = chunk
    }
    capture.encode(into: writer)
    try writer.finish()
    try feed(held, isLast: true, take)
    return writer.total
  }

  private func feed(
    _ bytes: [UInt8], isLast: Bool, _ take: (UnsafeRawBufferPointer) throws -> Void
  ) throws {
    if bytes.isEmpty && !isLast { return }
    try bytes.withUnsafeBytes { bytes in
      var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
      var isDone = false
      while !isDone {
        var target = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
        let left = ZSTD_compressStream2(context, &target, &input, isLast ? ZSTD_e_end : ZSTD_e_continue)
        if ZSTD_isError(left) != 0 {
          throw CheckpointFailure("zstd does not compress: \(String(cString: ZSTD_getErrorName(left)))")
        }
        if target.pos > 0 { try take(UnsafeRawBufferPointer(rebasing: output[..<target.pos])) }
        isDone = isLast ? left == 0 : input.pos == input.size
      }
    }
  }
}

/// The raw bytes of a section. `pieces` hands on its stored bytes, whose checksum it has seen to be right or will
/// refuse in the end. Throws when they are not one whole zstd frame of `section.rawBytes` bytes.
func decompressed(
  _ section: StoredSection, pieces: ((UnsafeRawBufferPointer) throws -> Void) throws -> Void
) throws -> [UInt8] {
  // A block of at most 128 KiB takes at least 4 bytes: more is no frame, and no reason to ask for the memory.
  guard section.rawBytes >= 0, section.rawBytes / 32_768 <= section.storedBytes else {
    throw CheckpointFailure("\(section.storedBytes) bytes cannot hold the \(section.rawBytes) that they should")
  }
  guard let context = ZSTD_createDCtx() else { throw CheckpointFailure("out of memory for zstd") }
  defer { ZSTD_freeDCtx(context) }
  // Never 0: an empty array is one for all threads, and its count would be written.
  return try [UInt8](unsafeUninitializedCapacity: max(1, section.rawBytes)) { buffer, filled in
    var target = ZSTD_outBuffer(dst: buffer.baseAddress, size: section.rawBytes, pos: 0)
    var isWhole = false
    try pieces { piece in
      var input = ZSTD_inBuffer(src: piece.baseAddress, size: piece.count, pos: 0)
      while input.pos < input.size {
        let before = (input.pos, target.pos)
        if isWhole { throw CheckpointFailure("there is something behind the compressed data") }
        let status = ZSTD_decompressStream(context, &target, &input)
        if ZSTD_isError(status) != 0 {
          throw CheckpointFailure("the compressed data is damaged: \(String(cString: ZSTD_getErrorName(status)))")
        }
        isWhole = status == 0
        if !isWhole, (input.pos, target.pos) == before {
          throw CheckpointFailure("the compressed data holds more than \(section.rawBytes) bytes")
        }
      }
    }
    guard isWhole else { throw CheckpointFailure("the compressed data is cut short") }
    guard target.pos == section.rawBytes else {
      throw CheckpointFailure("the compressed data holds \(target.pos) bytes instead of \(section.rawBytes)")
    }
    filled = target.pos
  }
}
