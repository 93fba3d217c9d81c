"""Reads an answer late: the server has long sent it and closed the connection.

usage: late_reader.py serve PORT
       late_reader.py run HOST PORT MIB

The client asks for MIB, and reads only once no more arrives; then it must get all, and the end.
"""
import fcntl
import socketserver
import struct
import sys
import termios
import time

from lib import DualStackServer, connect, digest_to_end, receive, send_chunks

QUIET_SECONDS = 0.5


class Sender(socketserver.BaseRequestHandler):
    def handle(self):
        size = int.from_bytes(receive(self.request, 8), "big")
        send_chunks(self.request, size, b"late")


def unread(sock):
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]


def run(host, port, mib):
    size = int(mib) << 20
    sock = connect(host, port)
    sock.sendall(size.to_bytes(8, "big"))
    last, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        now = unread(sock)
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.01)
    total, _ = digest_to_end(sock)
    if total != size:
        sys.exit(f"end after {total} of {size} bytes")
    print("ok")


if sys.argv[1] == "serve":
    DualStackServer(int(sys.argv[2]), Sender).serve_forever()
else:
    run(*sys.argv[2:])
