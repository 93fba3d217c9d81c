"""Measures delays that a person at the keyboard would feel.

usage: timing.py first-byte HOST PORT TIMES        to a server that speaks first
       timing.py ping-pong HOST PORT TIMES BYTES   to a server that echoes

Prints milliseconds: the shortest time from the connect to the first byte, or the sum of all rounds.
"""
import sys
import time

from lib import connect, receive


def first_byte(host, port):
    start = time.monotonic()
    with connect(host, port) as sock:
        receive(sock, 1)
        return time.monotonic() - start


def ping_pong(host, port, times, size):
    with connect(host, port) as sock:
        start = time.monotonic()
        for number in range(times):
            message = bytes([number % 256]) * size
            sock.sendall(message)
            if receive(sock, size) != message:
                sys.exit("the echo differs")
        return time.monotonic() - start


mode, host, port, times = sys.argv[1:5]
if mode == "first-byte":
    seconds = min(first_byte(host, port) for _ in range(int(times)))
else:
    seconds = ping_pong(host, port, int(times), int(sys.argv[5]))
print(round(seconds * 1000, 3))
