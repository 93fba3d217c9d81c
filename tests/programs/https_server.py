"""Answers every GET by HTTPS with what the client asked for and who it is.

usage: https_server.py PORT CERT KEY [ROOT]

With ROOT the client has to have a certificate of it.
"""
import http.server
import ssl
import sys

from lib import DualStackServer


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        certificate = self.connection.getpeercert() or {}
        names = [name for _, name in certificate.get("subjectAltName", ())]
        body = (
            f"sni={self.connection.sni} version={self.connection.version()} "
            f"client={','.join(names) or '-'} host={self.headers['host']}\n"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(DualStackServer):
    def finish_request(self, request, client_address):
        # In the connection's own thread, so that one that says nothing keeps no other waiting.
        with context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, *_):
        print("failed", sys.exc_info()[1])


def note_name(connection, name, _):
    connection.sni = name


port, certificate, key, *root = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.sni_callback = note_name
if root:
    context.load_verify_locations(root[0])
    context.verify_mode = ssl.CERT_REQUIRED
Server(int(port), Handler).serve_forever()
