/// Who sent a request.
public struct HTTPPeer: Sendable, Hashable {
  /// `127.0.0.1`, without the port.
  public var address: String
  /// The name of the token that was shown (its file's name, never the token); nil for none.
  public var tokenName: String?
  /// The subject of the client certificate that was shown and verified: `CN=ci,O=search`; nil for none.
  public var certificateSubject: String?
  public init(address: String, tokenName: String? = nil, certificateSubject: String? = nil) {
    self.address = address
    self.tokenName = tokenName
    self.certificateSubject = certificateSubject
  }
}

public struct HTTPRequest: Sendable {
  /// `GET`, `HEAD` or `POST`.
  public var method: String
  /// Decoded, without the query: `/api/v1/alerts`.
  public var path: String
  /// Decoded; of a repeated name the last value.
  public var query: [String: String]
  /// Of a POST; at most `HTTPLimits.bodyBytesMax`. Empty for other methods.
  public var body: [UInt8]
  public var peer: HTTPPeer
  public init(
    method: String, path: String, query: [String: String] = [:], body: [UInt8] = [],
    peer: HTTPPeer = HTTPPeer(address: "")
  ) {
    self.method = method
    self.path = path
    self.query = query
    self.body = body
    self.peer = peer
  }
}

public struct HTTPResponse: Sendable {
  public var status: Int
  public var contentType: String
  public var body: [UInt8]
  /// Beyond `Content-Type` and what the server adds by itself.
  public var headers: [(name: String, value: String)] = []
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

  /// 405, naming the methods that the path does take: `GET, HEAD`.
  public static func methodNotAllowed(allow: String) -> HTTPResponse {
    var response = HTTPResponse.text("only \(allow)\n", status: 405)
    response.headers = [("Allow", allow)]
    return response
  }

  static let unauthorized: HTTPResponse = {
    var response = HTTPResponse.text("a token or a client certificate is needed\n", status: 401)
    response.headers = [("WWW-Authenticate", "Bearer")]
    return response
  }()
}

public struct HTTPLimits: Sendable {
  /// Further connections are refused until one ends.
  public var connectionsMax: UInt32 = 64
  /// Request line and headers of one connection.
  public var connectionBytesMax = 32 * 1024
  /// Body of a request; a longer one is answered with 413, or cut off where its length was not announced.
  public var bodyBytesMax = 64 * 1024
  /// A connection that is silent for this long is closed.
  public var idleSeconds: UInt32 = 15
  public init() {}
}

public struct HTTPFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
}

/// Who may ask, and whether the wire is encrypted. The default lets everybody in, unencrypted.
public struct HTTPSecurity: Sendable {
  /// A bearer token that opens every path.
  public var token: Secret?
  /// What the audit log calls it.
  public var tokenName = ""
  /// PEM. Both or none; with them the server speaks TLS (1.2 and 1.3) and nothing else.
  public var certificate: Secret?
  public var key: Secret?
  /// PEM: a client that shows a certificate from one of these needs no token. Only with TLS.
  public var clientAuthorities: Secret?
  /// What is open to everybody.
  public var openPaths: Set<String> = ["/healthz"]
  public init() {}

  /// Whether a request must show something.
  public var isRestricted: Bool { token != nil || clientAuthorities != nil }
  public var isEncrypted: Bool { certificate != nil }
}
