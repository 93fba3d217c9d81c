"""Resets connections, and tells whether one was reset.

usage: reset.py serve PORT        resets each connection after its first byte
       reset.py expect HOST PORT  sends a byte, prints "reset" or "closed"
       reset.py send HOST PORT    sends a byte, waits for one, then resets
"""
import socket
import socketserver
import struct
import sys

from lib import DualStackServer, connect, receive


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Resetter(socketserver.BaseRequestHandler):
    def handle(self):
        receive(self.request, 1)
        reset(self.request)


class Server(DualStackServer):
    def shutdown_request(self, request):
        """Leaves out the orderly end."""


def expect(host, port):
    try:
        sock = connect(host, port)
        sock.sendall(b"x")
        print("closed" if sock.recv(1) == b"" else "data")
    except (BrokenPipeError, ConnectionResetError):
        print("reset")


def send(host, port):
    sock = connect(host, port)
    sock.sendall(b"x")
    receive(sock, 1)
    reset(sock)


if sys.argv[1] == "serve":
    Server(int(sys.argv[2]), Resetter).serve_forever()
elif sys.argv[1] == "expect":
    expect(*sys.argv[2:])
else:
    send(*sys.argv[2:])
