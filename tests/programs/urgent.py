"""Sends urgent data, single bytes and empty writes; all bytes must arrive in order.

usage: urgent.py serve PORT
       urgent.py run HOST PORT

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


def run(host, port):
    sock = connect(host, port)
    sock.sendall(b"before-")
    sock.send(b"")
    sock.send(b"!", socket.MSG_OOB)
    for byte in b"-after":
        sock.send(bytes([byte]))
    sock.shutdown(socket.SHUT_WR)
    echoed = receive(sock, len(b"before-!-after"))
    if echoed != b"before-!-after" or sock.recv(1) != b"":
        sys.exit(f"received {echoed!r}")
    print("ok")


if sys.argv[1] == "serve":
    DualStackServer(int(sys.argv[2]), InlineEcho).serve_forever()
else:
    run(*sys.argv[2:])
