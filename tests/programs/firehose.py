"""Sends as fast as it can to clients that read slowly.

usage: firehose.py serve PORT
       firehose.py run HOST PORT CONNECTIONS BYTES_PER_SECOND SECONDS

The client reads each connection at the given pace, and prints the bytes it read of all.
"""
import socketserver
import sys
import time

from lib import CHUNK, DualStackServer, connect, receive

READS_PER_SECOND = 16


class Hose(socketserver.BaseRequestHandler):
    def handle(self):
        data = bytes(CHUNK)
        try:
            while True:
                self.request.sendall(data)
        except OSError:
            pass


def run(host, port, connections, pace, seconds):
    socks = [connect(host, port) for _ in range(int(connections))]
    part = int(pace) // READS_PER_SECOND
    total = 0
    print("connected")
    for step in range(1, int(seconds) * READS_PER_SECOND + 1):
        total += sum(len(receive(sock, part)) for sock in socks)
        time.sleep(1 / READS_PER_SECOND)
    print("read", total)


if sys.argv[1] == "serve":
    DualStackServer(int(sys.argv[2]), Hose).serve_forever()
else:
    run(*sys.argv[2:])
