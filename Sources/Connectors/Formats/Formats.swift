import Catalog

/// The payload formats that a source can name; the checker is handed them in its catalog. A new format is one
/// file in this folder and one line here.
public let connectorFormats: [FormatSpec] = [
  jsonFormat
]
