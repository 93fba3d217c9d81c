"""Sends urgent data, single bytes and empty writes; all bytes must arrive in order.

usage: urgent.py serve PORT
       urgent.py run HOST PORT [KIB]

With KIB, that many KiB of ordinary data come first: what is long may be copied in another way.

The server takes urgent bytes in line, so that it echoes them with the rest.
"""
import socket
import socketserver
import sys

from lib import DualStackServer, connect, receive


class InlineEcho(socketserver.BaseRequestHandler):
    def setup(self):
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)


def run(host, port, kib="0"):
    sock = connect(host, port)
    ordinary = bytes(range(256)) * 4 * int(kib)
    sock.sendall(ordinary)
    if receive(sock, len(ordinary)) != ordinary:
        sys.exit("ordinary data differs")
    sock.sendall(b"before-")
    sock.send(b"")
    sock.send(b"!", socket.MSG_OOB)
    for byte in b"-after":
        sock.send(bytes([byte]))
    sock.shutdown(socket.SHUT_WR)
    sock.settimeout(10)
    echoed = receive(sock, len(b"before-!-after"))
    if echoed != b"before-!-after" or sock.recv(1) != b"":
        sys.exit(f"received {echoed!r}")
    print("ok")


if sys.argv[1] == "serve":
    DualStackServer(int(sys.argv[2]), InlineEcho).serve_forever()
else:
    run(*sys.argv[2:])
