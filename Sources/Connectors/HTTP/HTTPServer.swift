import CMicrohttpd
import Glibc
import Synchronization

/// A small HTTP server over libmicrohttpd: GET, HEAD and POST, one thread of its own, a bounded number of
/// connections, bounded requests; TLS, a bearer token and client certificates where `HTTPSecurity` says so.
///
/// The handler runs on that thread, one request at a time: it answers from memory and does not wait.
///
/// @unchecked: the daemon pointer is taken by `stop` under the lock, once; the texts belong to the daemon.
public final class HTTPServer: @unchecked Sendable {
  public typealias Handler = @Sendable (HTTPRequest) -> HTTPResponse

  /// The port that is listened on.
  public let port: UInt16
  private let daemon: Mutex<UInt>
  private let box: HandlerBox
  private let texts: [CText]

  /// Listens on `bind` (an IPv4 address) and `port`, 0 for a free one. Throws `HTTPFailure` when that address
  /// is no address, or taken, or when certificate and key do not go together.
  public init(
    bind: String, port: UInt16, limits: HTTPLimits = .init(), security: HTTPSecurity = .init(),
    handler: @escaping Handler
  ) throws {
    box = HandlerBox(handler, security, bodyBytesMax: limits.bodyBytesMax)
    var options = mhd_shim_options()
    options.connections_max = limits.connectionsMax
    options.connection_bytes_max = limits.connectionBytesMax
    options.idle_seconds = limits.idleSeconds
    let certificate = CText(security.certificate)
    let key = CText(security.key)
    let authorities = CText(security.clientAuthorities)
    texts = [certificate, key, authorities]
    options.certificate = certificate.pointer
    options.key = key.pointer
    options.client_ca = authorities.pointer
    if let certificate = certificate.pointer {
      guard let key = key.pointer else {
        throw HTTPFailure(description: "TLS needs a key as well as a certificate")
      }
      if let reason = mhd_shim_check_tls(certificate, key, authorities.pointer) {
        throw HTTPFailure(description: "the TLS certificate or key cannot be used: \(String(cString: reason))")
      }
    } else if security.key != nil || security.clientAuthorities != nil {
      throw HTTPFailure(description: "TLS needs a certificate")
    }
    let listener = try Self.listen(bind: bind, port: port)
    self.port = listener.port
    options.listen_socket = listener.socket
    let started = mhd_shim_start(&options, answer, requestEnded, Unmanaged.passUnretained(box).toOpaque())
    guard let started else {
      close(listener.socket)
      throw HTTPFailure(description: "the HTTP server does not start on \(bind):\(listener.port)")
    }
    daemon = Mutex(UInt(bitPattern: started))
  }

  deinit { stop() }

  /// Closes the port and all connections; returns when the last request has been answered.
  public func stop() {
    let address = daemon.withLock { address in
      defer { address = 0 }
      return address
    }
    if let pointer = OpaquePointer(bitPattern: address) { MHD_stop_daemon(pointer) }
  }

  private static func listen(bind address: String, port: UInt16) throws -> (socket: Int32, port: UInt16) {
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = port.bigEndian
    guard inet_pton(AF_INET, address, &name.sin_addr) == 1 else {
      throw HTTPFailure(description: "`\(address)` is no IPv4 address to listen on")
    }
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var one: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafeMutablePointer(to: &name) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.bind(descriptor, $0, length) == 0 && Glibc.listen(descriptor, 64) == 0
          && getsockname(descriptor, $0, &length) == 0
      }
    }
    guard bound else {
      let reason = String(cString: strerror(errno))
      close(descriptor)
      throw HTTPFailure(description: "cannot listen on \(address):\(port): \(reason)")
    }
    return (descriptor, UInt16(bigEndian: name.sin_port))
  }
}

/// A text for C at an address that holds still, wiped when it goes.
private final class CText {
  let pointer: UnsafePointer<CChar>?
  private let count: Int

  init(_ secret: Secret?) {
    count = secret?.bytes.count ?? 0
    guard let secret else {
      pointer = nil
      return
    }
    let text = UnsafeMutablePointer<CChar>.allocate(capacity: count + 1)
    for (index, byte) in secret.bytes.enumerated() { (text + index).initialize(to: CChar(bitPattern: byte)) }
    (text + count).initialize(to: 0)
    pointer = UnsafePointer(text)
  }

  deinit {
    guard let pointer else { return }
    let text = UnsafeMutablePointer(mutating: pointer)
    explicit_bzero(text, count)
    text.deallocate()
  }
}

private final class HandlerBox: Sendable {
  let handler: HTTPServer.Handler
  let security: HTTPSecurity
  let bodyBytesMax: Int
  init(_ handler: @escaping HTTPServer.Handler, _ security: HTTPSecurity, bodyBytesMax: Int) {
    self.handler = handler
    self.security = security
    self.bodyBytesMax = bodyBytesMax
  }

  /// Who asks; nil when they may not.
  func peer(of connection: OpaquePointer, path: String) -> HTTPPeer? {
    var peer = HTTPPeer(address: address(of: connection))
    if let token = security.token, let shown = bearerToken(of: connection), token.matches(shown) {
      peer.tokenName = security.tokenName
    }
    if security.clientAuthorities != nil { peer.certificateSubject = verifiedSubject(of: connection) }
    let isKnown = peer.tokenName != nil || peer.certificateSubject != nil
    return isKnown || !security.isRestricted || security.openPaths.contains(path) ? peer : nil
  }
}

private func address(of connection: OpaquePointer) -> String {
  guard let name = mhd_shim_address(connection), Int32(name.pointee.sa_family) == AF_INET else { return "unknown" }
  return name.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { name in
    var place = name.pointee.sin_addr
    var text = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
    guard inet_ntop(AF_INET, &place, &text, socklen_t(text.count)) != nil else { return "unknown" }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// The value of a header, as it came.
private func header(_ name: String, of connection: OpaquePointer) -> [UInt8]? {
  guard let value = mhd_shim_header(connection, name) else { return nil }
  return Array(UnsafeBufferPointer(start: value, count: strlen(value)).map { UInt8(bitPattern: $0) })
}

private func bearerToken(of connection: OpaquePointer) -> ArraySlice<UInt8>? {
  guard let value = header("Authorization", of: connection) else { return nil }
  let scheme = Array("bearer ".utf8)
  guard value.count > scheme.count, zip(value, scheme).allSatisfy({ $0 | 0x20 == $1 | 0x20 }) else { return nil }
  return value[scheme.count...].drop { $0 == 0x20 }
}

private func verifiedSubject(of connection: OpaquePointer) -> String? {
  var subject = [CChar](repeating: 0, count: 512)
  guard mhd_shim_verified_subject(connection, &subject, subject.count) != 0 else { return nil }
  return String(decoding: subject.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// A request on its way in: kept by libmicrohttpd between its calls for it.
private final class Incoming {
  let peer: HTTPPeer
  var body: [UInt8] = []
  init(_ peer: HTTPPeer) { self.peer = peer }
}

/// libmicrohttpd's calls for a request: one when the headers are there, one for each piece of the body, one at the
/// end. Who may not ask is told so before anything of the body is read.
private func answer(
  _ opaque: UnsafeMutableRawPointer?, _ connection: OpaquePointer?, _ url: UnsafePointer<CChar>?,
  _ method: UnsafePointer<CChar>?, _: UnsafePointer<CChar>?, _ piece: UnsafePointer<CChar>?,
  _ pieceBytes: UnsafeMutablePointer<Int>?, _ state: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
  guard let opaque, let connection, let url, let method, let pieceBytes, let state else { return .NO }
  let box = Unmanaged<HandlerBox>.fromOpaque(opaque).takeUnretainedValue()
  let method_ = String(cString: method)
  let path = String(cString: url)
  guard let pointer = state.pointee else {
    guard let peer = box.peer(of: connection, path: path) else { return reply(.unauthorized, connection) }
    guard ["GET", "HEAD", "POST"].contains(method_) else {
      return reply(.methodNotAllowed(allow: "GET, HEAD, POST"), connection)
    }
    if let announced = header("Content-Length", of: connection) {
      let length = Int(String(decoding: announced, as: UTF8.self))
      guard let length, (0...box.bodyBytesMax).contains(length) else {
        return reply(.text("the body is longer than \(box.bodyBytesMax) bytes\n", status: 413), connection)
      }
    }
    state.pointee = Unmanaged.passRetained(Incoming(peer)).toOpaque()
    return .YES
  }
  let incoming = Unmanaged<Incoming>.fromOpaque(pointer).takeUnretainedValue()
  if pieceBytes.pointee > 0 {
    // A body without a length can only be cut off: no answer is possible before it has been read.
    guard let piece, incoming.body.count + pieceBytes.pointee <= box.bodyBytesMax else { return .NO }
    piece.withMemoryRebound(to: UInt8.self, capacity: pieceBytes.pointee) {
      incoming.body.append(contentsOf: UnsafeBufferPointer(start: $0, count: pieceBytes.pointee))
    }
    pieceBytes.pointee = 0
    return .YES
  }
  return reply(
    box.handler(
      HTTPRequest(
        method: method_, path: path, query: query(of: connection), body: method_ == "POST" ? incoming.body : [],
        peer: incoming.peer)), connection)
}

private func requestEnded(
  _: UnsafeMutableRawPointer?, _: OpaquePointer?, _ state: UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
  _: MHD_RequestTerminationCode
) {
  guard let pointer = state?.pointee else { return }
  state?.pointee = nil
  Unmanaged<Incoming>.fromOpaque(pointer).release()
}

private func query(of connection: OpaquePointer) -> [String: String] {
  var query: [String: String] = [:]
  withUnsafeMutablePointer(to: &query) { query in
    _ = mhd_shim_query(
      connection,
      { query, _, name, value in
        guard let query, let name else { return .YES }
        query.assumingMemoryBound(to: [String: String].self)
          .pointee[String(cString: name)] = value.map { String(cString: $0) } ?? ""
        return .YES
      }, query)
  }
  return query
}

private func reply(_ response: HTTPResponse, _ connection: OpaquePointer) -> MHD_Result {
  let made = response.body.withUnsafeBytes { mhd_shim_response($0.baseAddress, $0.count) }
  guard let made else { return .NO }
  defer { MHD_destroy_response(made) }
  MHD_add_response_header(made, "Content-Type", response.contentType)
  for header in response.headers { MHD_add_response_header(made, header.name, header.value) }
  return MHD_queue_response(connection, UInt32(clamping: response.status), made)
}
