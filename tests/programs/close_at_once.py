"""Gets a page from a port of its own choice and leaves no trace of the connection: it ends it with
a reset, so that the next one may have the same port.

usage: close_at_once.py HOST PORT OWN_PORT
"""
import socket
import struct
import sys

host, port, own_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM)
sock.settimeout(5)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
sock.bind(("", own_port))
try:
    sock.connect((host, port))
    sock.sendall(b"GET / HTTP/1.1\r\nHost: any\r\n\r\n")
    print("answer" if sock.recv(4096).startswith(b"HTTP/1.1 200") else "closed")
except OSError as error:
    print("refused", error)
sock.close()
