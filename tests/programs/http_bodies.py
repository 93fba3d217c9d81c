"""An HTTP/1.1 server for bodies of any size and framing.

usage: http_bodies.py PORT

POST and PUT are answered with the number of bytes that came, their digest, how they were framed and
the "Expect" of the request; GET /chunked/N with N bytes in chunks; GET /hints with 103 before the answer;
GET /none with 204; GET /same with 304; GET /stall with ten of a thousand bytes; GET /hold never. Others
print the number of their connection.
"""
import hashlib
import http.server
import itertools
import sys
import time

from lib import DualStackServer, chunks

numbers = itertools.count(1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.number = next(numbers)

    def pieces(self):
        """Yields the body of the request."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left:
                piece = self.rfile.read(min(left, 65536))
                left -= len(piece)
                yield piece

    def do_POST(self):
        size, digest = 0, hashlib.sha256()
        for piece in self.pieces():
            size += len(piece)
            digest.update(piece)
        framing = self.headers.get("Transfer-Encoding", "length")
        expect = self.headers.get("Expect", "-")
        self.answer(f"size={size} digest={digest.hexdigest()} framing={framing} expect={expect}\n".encode())

    do_PUT = do_POST

    def do_GET(self):
        if self.path.startswith("/chunked/"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunks(int(self.path.rsplit("/")[-1]), b"body"):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path in ("/none", "/same"):
            self.send_response(204 if self.path == "/none" else 304)
            self.send_header("ETag", '"tag"')
            self.end_headers()
        else:
            if self.path == "/hold":
                time.sleep(3600)
            if self.path == "/stall":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(bytes(10))
                time.sleep(3600)
            if self.path == "/hints":
                self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
            self.answer(b"plain\n")

    def do_HEAD(self):
        self.answer(bytes(12345))

    def answer(self, body):
        print("connection", self.number)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


DualStackServer(int(sys.argv[1]), Handler).serve_forever()
