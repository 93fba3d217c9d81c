"""Sends small messages to an echoing server, one at a time, and prints how long answers took.

usage: ping_pong.py HOST PORT MESSAGES BYTES

Prints "median MICROSECONDS", "worst MICROSECONDS" and, with a connection per message included,
"connect MICROSECONDS", the longest of a few.
"""
import sys
import time

from lib import connect, receive

CONNECTS = 10


def timed(work):
    start = time.perf_counter()
    work()
    return int((time.perf_counter() - start) * 1e6)


def exchange(sock, message):
    sock.sendall(message)
    if receive(sock, len(message)) != message:
        sys.exit("the answer differs")


def fresh(host, port, message):
    with connect(host, port) as sock:
        exchange(sock, message)


host, port, messages, size = sys.argv[1:]
message = bytes(int(size))
fresh(host, port, message)
with connect(host, port) as sock:
    times = sorted(timed(lambda: exchange(sock, message)) for _ in range(int(messages)))
print("median", times[len(times) // 2])
print("worst", times[-1])
print("connect", max(timed(lambda: fresh(host, port, message)) for _ in range(CONNECTS)))
