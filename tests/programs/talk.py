"""Holds a connection and does what its input says; prints what happens to the connection.

usage: talk.py HOST PORT
input: "send TEXT", "shutdown", "close", "reset"
output: "connected", "received TEXT", "closed" (end of stream), "reset", "error ..."
"""
import os
import socket
import struct
import sys
import threading

from lib import connect


def report(sock):
    try:
        for line in sock.makefile("r", errors="replace"):
            print("received", line.rstrip("\n"))
        print("closed")
    except ConnectionResetError:
        print("reset")
    except OSError as error:
        print("error", error)


def obey(sock, command, text):
    if command == "send":
        sock.sendall(text.encode() + b"\n")
    elif command == "shutdown":
        sock.shutdown(socket.SHUT_WR)
    elif command in ("close", "reset"):
        if command == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os._exit(0)


try:
    sock = connect(sys.argv[1], sys.argv[2])
except OSError as error:
    print("failed", error)
    sys.exit(1)
sock.settimeout(None)
print("connected")
reporter = threading.Thread(target=report, args=(sock,), daemon=True)
reporter.start()
for line in sys.stdin:
    command, _, text = line.rstrip("\n").partition(" ")
    try:
        obey(sock, command, text)
    except OSError as error:
        print("error", error)
