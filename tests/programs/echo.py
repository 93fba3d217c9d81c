"""Echoes what it receives, over IPv4 and IPv6; ends its side when the client does.

usage: echo.py PORT
"""
import socketserver
import sys

from lib import DualStackServer


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


DualStackServer(int(sys.argv[1]), Echo).serve_forever()
