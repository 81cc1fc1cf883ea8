#ifndef RULESD_CMICROHTTPD_SHIM_H
#define RULESD_CMICROHTTPD_SHIM_H

#include <string.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>

typedef struct {
  int listen_socket;
  unsigned connections_max;
  size_t connection_bytes_max;
  unsigned idle_seconds;
  // PEM texts, or NULL. With a certificate the server speaks TLS only; with `client_ca` it asks for a client certificate.
  const char *certificate;
  const char *key;
  const char *client_ca;
} mhd_shim_options;

// `MHD_start_daemon` for Swift, which cannot call variadic functions. One thread of its own; takes over the
// socket. libmicrohttpd copies nothing: the texts must live as long as the daemon.
static inline struct MHD_Daemon *mhd_shim_start(
    const mhd_shim_options *o, MHD_AccessHandlerCallback handler, MHD_RequestCompletedCallback completed, void *opaque) {
  struct MHD_OptionItem tls[8];
  unsigned count = 0, flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO | MHD_USE_ITC;
  if (o->certificate) {
    flags |= MHD_USE_TLS;
    tls[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)o->certificate};
    tls[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)o->key};
    tls[count++] = (struct MHD_OptionItem){
        MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"};
    if (o->client_ca)
      tls[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_TRUST, 0, (void *)o->client_ca};
  }
  tls[count] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
  return MHD_start_daemon(
      flags, 0, NULL, NULL, handler, opaque,
      MHD_OPTION_LISTEN_SOCKET, o->listen_socket, MHD_OPTION_CONNECTION_LIMIT, o->connections_max,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, o->connection_bytes_max, MHD_OPTION_CONNECTION_TIMEOUT, o->idle_seconds,
      MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED, completed, opaque, MHD_OPTION_ARRAY, tls,
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

// The value of a header, or NULL.
static inline const char *mhd_shim_header(struct MHD_Connection *connection, const char *name) {
  return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

// The other end's address, or NULL.
static inline const struct sockaddr *mhd_shim_address(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  return info ? info->client_addr : NULL;
}

// Why a certificate with its key, or a file of certificates to trust, cannot be used; NULL when it can.
static inline const char *mhd_shim_check_tls(const char *certificate, const char *key, const char *client_ca) {
  gnutls_certificate_credentials_t credentials;
  int status = gnutls_certificate_allocate_credentials(&credentials);
  if (status < 0) return gnutls_strerror(status);
  gnutls_datum_t pem = {(unsigned char *)certificate, (unsigned)strlen(certificate)};
  gnutls_datum_t secret = {(unsigned char *)key, (unsigned)strlen(key)};
  status = gnutls_certificate_set_x509_key_mem2(credentials, &pem, &secret, GNUTLS_X509_FMT_PEM, NULL, 0);
  if (status >= 0 && client_ca) {
    gnutls_datum_t trust = {(unsigned char *)client_ca, (unsigned)strlen(client_ca)};
    status = gnutls_certificate_set_x509_trust_mem(credentials, &trust, GNUTLS_X509_FMT_PEM);
    if (status == 0) status = GNUTLS_E_NO_CERTIFICATE_FOUND;
  }
  gnutls_certificate_free_credentials(credentials);
  return status < 0 ? gnutls_strerror(status) : NULL;
}

// Writes the subject of the client's certificate, when it showed one that the trusted ones vouch for and that is meant for
// clients. Returns 0 when it did not: libmicrohttpd asks for a certificate, and leaves the checking to us.
static inline int mhd_shim_verified_subject(struct MHD_Connection *connection, char *subject, size_t capacity) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  if (!info || !info->tls_session) return 0;
  gnutls_session_t session = (gnutls_session_t)info->tls_session;
  gnutls_typed_vdata_st purpose = {GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT, 0};
  unsigned status = 0;
  if (gnutls_certificate_verify_peers(session, &purpose, 1, &status) != 0 || status != 0) return 0;
  unsigned count = 0;
  const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
  if (!chain || count == 0) return 0;
  gnutls_x509_crt_t certificate;
  if (gnutls_x509_crt_init(&certificate) < 0) return 0;
  int done = 0;
  size_t length = capacity;
  if (gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) == 0) {
    done = 1;
    // A subject that does not fit, or is empty, still is a verified one.
    if (gnutls_x509_crt_get_dn(certificate, subject, &length) < 0 && capacity > 0) subject[0] = 0;
  }
  gnutls_x509_crt_deinit(certificate);
  return done;
}

#endif
