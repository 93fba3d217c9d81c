"""Answers every GET with the address of its peer, its own address and the path.

usage: http_server.py PORT
"""
import http.server
import sys

from lib import DualStackServer


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        peer, port = self.client_address[:2]
        own = self.connection.getsockname()[0]
        plain = [address.removeprefix("::ffff:") for address in (peer, own)]
        body = f"peer={plain[0]} port={port} own={plain[1]} path={self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            # Unsaid, a client with many requests may send another one on a connection that ends.
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


DualStackServer(int(sys.argv[1]), Handler).serve_forever()
