"""Takes connections with a header of the PROXY protocol, version 2, and answers every GET with what
the header says and the address that the connection itself comes from.

usage: proxy_server.py PORT
"""
import http.server
import socket
import struct
import sys

from lib import DualStackServer

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FAMILIES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}
IDENTITY = 0xD0


def read_header(stream):
    """Returns the source, the target and the fields of the header, by their types."""
    head = stream.read(16)
    signature, command, family, length = struct.unpack("!12sBBH", head)
    if signature != SIGNATURE or command != 0x21:
        raise ValueError(f"no header: {head!r}")
    body = stream.read(length)
    kind, size = FAMILIES[family]
    addresses = [socket.inet_ntop(kind, body[i : i + size]) for i in (0, size)]
    ports = struct.unpack("!HH", body[2 * size : 2 * size + 4])
    fields, rest = {}, body[2 * size + 4 :]
    while rest:
        field, size = struct.unpack("!BH", rest[:3])
        fields[field], rest = rest[3 : 3 + size], rest[3 + size :]
    source, target = zip(addresses, ports)
    return source, target, fields


class Handler(http.server.BaseHTTPRequestHandler):
    def setup(self):
        super().setup()
        self.header = read_header(self.rfile)

    def do_GET(self):
        source, target, fields = self.header
        peer = self.client_address[0].removeprefix("::ffff:")
        body = (
            f"peer={peer} source={source[0]} source_port={source[1]} target={target[0]} "
            f"target_port={target[1]} identity={fields.get(IDENTITY, b'').decode()}\n"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


DualStackServer(int(sys.argv[1]), Handler).serve_forever()
