#include <microhttpd.h>

// `MHD_start_daemon` for Swift, which cannot call variadic functions. One thread of its own; takes over the
// socket.
static inline struct MHD_Daemon *mhd_shim_start(
    int listen_socket, unsigned connections_max, size_t connection_bytes_max, unsigned idle_seconds,
    MHD_AccessHandlerCallback handler, void *opaque) {
  return MHD_start_daemon(
      MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO | MHD_USE_ITC, 0, NULL, NULL, handler, opaque,
      MHD_OPTION_LISTEN_SOCKET, listen_socket, MHD_OPTION_CONNECTION_LIMIT, connections_max,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, connection_bytes_max, MHD_OPTION_CONNECTION_TIMEOUT, idle_seconds,
      MHD_OPTION_END);
}

// A response that has its own copy of the body.
static inline struct MHD_Response *mhd_shim_response(const void *body, size_t length) {
  return MHD_create_response_from_buffer(length, (void *)body, MHD_RESPMEM_MUST_COPY);
}

static inline int mhd_shim_query(
    struct MHD_Connection *connection, MHD_KeyValueIterator visit, void *opaque) {
  return MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, visit, opaque);
}
