"""Speaks first, as mail and database servers do, then echoes lines.

usage: server_first.py PORT
"""
import socketserver
import sys

from lib import DualStackServer


class Greeter(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 ready\n")
        for line in self.rfile:
            self.wfile.write(line)


DualStackServer(int(sys.argv[1]), Greeter).serve_forever()
