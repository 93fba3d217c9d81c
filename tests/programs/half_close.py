"""Closes one direction of a connection while the other still carries data.

usage: half_close.py serve PORT
       half_close.py client-first|server-first|both HOST PORT MIB

client-first: the client ends its side at once, then receives everything.
server-first: the server ends its side at once, then receives everything.
both:         both send a MiB-count of data and end their sides at the same time.
"""
import hashlib
import socket
import socketserver
import sys
import threading

from lib import DualStackServer, chunks, connect, digest_to_end, receive, send_chunks

MODES = ["client-first", "server-first", "both"]


def expected(size, seed):
    digest = hashlib.sha256()
    for chunk in chunks(size, seed):
        digest.update(chunk)
    return size, digest.digest()


def send_and_end(sock, size, seed):
    send_chunks(sock, size, seed)
    sock.shutdown(socket.SHUT_WR)


def exchange(sock, sends, receives, own, other):
    """Sends and ends, while receiving to the end; returns whether all arrived."""
    sender = threading.Thread(target=send_and_end, args=(sock, sends, own))
    sender.start()
    arrived = digest_to_end(sock)
    sender.join()
    return arrived == expected(receives, other)


class Peer(socketserver.BaseRequestHandler):
    def handle(self):
        mode = MODES[receive(self.request, 1)[0]]
        size = int.from_bytes(receive(self.request, 8), "big")
        sends = 0 if mode == "server-first" else size
        receives = 0 if mode == "client-first" else size
        print(mode, "ok" if exchange(self.request, sends, receives, b"server", b"client") else "LOST")


def run(mode, host, port, mib):
    size = int(mib) << 20
    sock = connect(host, port)
    sock.sendall(bytes([MODES.index(mode)]) + size.to_bytes(8, "big"))
    sends = 0 if mode == "client-first" else size
    receives = 0 if mode == "server-first" else size
    if not exchange(sock, sends, receives, b"client", b"server"):
        sys.exit("not all bytes arrived")
    print("ok")


if sys.argv[1] == "serve":
    DualStackServer(int(sys.argv[2]), Peer).serve_forever()
else:
    run(*sys.argv[1:])
