import CMicrohttpd
import Glibc
import Synchronization

public struct HTTPRequest: Sendable {
  /// `GET` or `HEAD`.
  public var method: String
  /// Decoded, without the query: `/api/v1/alerts`.
  public var path: String
  /// Decoded; of a repeated name the last value.
  public var query: [String: String]
  public init(method: String, path: String, query: [String: String] = [:]) {
    self.method = method
    self.path = path
    self.query = query
  }
}

public struct HTTPResponse: Sendable {
  public var status: Int
  public var contentType: String
  public var body: [UInt8]
  public init(status: Int, contentType: String, body: [UInt8]) {
    self.status = status
    self.contentType = contentType
    self.body = body
  }
  public static func text(_ text: String, status: Int = 200) -> HTTPResponse {
    HTTPResponse(status: status, contentType: "text/plain; charset=utf-8", body: Array(text.utf8))
  }
  public static func json(_ text: String, status: Int = 200) -> HTTPResponse {
    HTTPResponse(status: status, contentType: "application/json", body: Array(text.utf8))
  }
  public static let notFound = HTTPResponse.text("not found\n", status: 404)
}

public struct HTTPLimits: Sendable {
  public var connectionsMax: UInt32 = 64
  /// Request line and headers of one connection.
  public var connectionBytesMax = 32 * 1024
  /// A connection that is silent for this long is closed.
  public var idleSeconds: UInt32 = 15
  public init() {}
}

public struct HTTPFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
}

/// A small HTTP server over libmicrohttpd: GET and HEAD, one thread of its own, a bounded number of
/// connections.
///
/// The handler runs on that thread, one request at a time: it answers from memory and does not wait.
///
/// @unchecked: the daemon pointer is taken by `stop` under the lock, once.
public final class HTTPServer: @unchecked Sendable {
  public typealias Handler = @Sendable (HTTPRequest) -> HTTPResponse

  /// The port that is listened on.
  public let port: UInt16
  private let daemon: Mutex<UInt>
  private let box: HandlerBox

  /// Listens on `bind` (an IPv4 address) and `port`, 0 for a free one. Throws `HTTPFailure` when that address
  /// is no address, or taken.
  public init(bind: String, port: UInt16, limits: HTTPLimits = .init(), handler: @escaping Handler) throws {
    box = HandlerBox(handler)
    let listener = try Self.listen(bind: bind, port: port)
    self.port = listener.port
    let started = mhd_shim_start(
      listener.socket, limits.connectionsMax, limits.connectionBytesMax, limits.idleSeconds, answer,
      Unmanaged.passUnretained(box).toOpaque())
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

private final class HandlerBox: Sendable {
  let handler: HTTPServer.Handler
  init(_ handler: @escaping HTTPServer.Handler) { self.handler = handler }
}

/// libmicrohttpd's call for a request; with GET and HEAD the body, if any, is not read.
private func answer(
  _ opaque: UnsafeMutableRawPointer?, _ connection: OpaquePointer?, _ url: UnsafePointer<CChar>?,
  _ method: UnsafePointer<CChar>?, _: UnsafePointer<CChar>?, _: UnsafePointer<CChar>?,
  _: UnsafeMutablePointer<Int>?, _: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
  guard let opaque, let connection, let url, let method else { return .NO }
  let method_ = String(cString: method)
  let response: HTTPResponse
  if method_ == "GET" || method_ == "HEAD" {
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
    let box = Unmanaged<HandlerBox>.fromOpaque(opaque).takeUnretainedValue()
    response = box.handler(HTTPRequest(method: method_, path: String(cString: url), query: query))
  } else {
    response = .text("only GET and HEAD\n", status: 405)
  }
  let reply = response.body.withUnsafeBytes {
    mhd_shim_response($0.baseAddress, $0.count)
  }
  guard let reply else { return .NO }
  defer { MHD_destroy_response(reply) }
  MHD_add_response_header(reply, "Content-Type", response.contentType)
  if response.status == 405 { MHD_add_response_header(reply, "Allow", "GET, HEAD") }
  return MHD_queue_response(connection, UInt32(clamping: response.status), reply)
}
