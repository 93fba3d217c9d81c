"""Sends SIZE MiB in both directions at once and compares checksums at both ends.

usage: transfer.py serve PORT [last]
       transfer.py run HOST PORT MIB

With "last" the server closes after the client and not before.
"""
import socketserver
import sys
import threading

from lib import DualStackServer, connect, digest_to_end, receive, send_chunks

DIGEST = 32


class Result:
    digest = None


def both_ways(sock, size, seed):
    """Returns the digests of what was sent and of what was received."""
    sent = Result()

    def send():
        sent.digest = send_chunks(sock, size, seed)

    sender = threading.Thread(target=send)
    sender.start()
    total, received = digest_to_end(sock, size)
    sender.join()
    if total != size:
        raise EOFError(f"end after {total} of {size} bytes")
    return sent.digest, received


class Peer(socketserver.BaseRequestHandler):
    def handle(self):
        size = int.from_bytes(receive(self.request, 8), "big")
        sent, received = both_ways(self.request, size, b"server")
        self.request.sendall(sent + received)
        if "last" in sys.argv:
            self.request.recv(1)


def run(host, port, mib):
    size = int(mib) << 20
    sock = connect(host, port)
    sock.sendall(size.to_bytes(8, "big"))
    sent, received = both_ways(sock, size, b"client")
    answer = receive(sock, 2 * DIGEST)
    if answer != received + sent:
        sys.exit("checksums differ")
    print(f"ok {size} bytes each way")


if sys.argv[1] == "serve":
    DualStackServer(int(sys.argv[2]), Peer).serve_forever()
else:
    run(*sys.argv[2:])
