"""Opens, uses and closes many connections to an echoing server.

usage: short_connections.py HOST PORT COUNT PARALLEL

Prints "ok COUNT"; fails at the first connection that does not work.
"""
import os
import sys

from lib import connect, receive


def work(host, port, count):
    for number in range(count):
        message = b"%08d" % number
        with connect(host, port) as sock:
            sock.sendall(message)
            if receive(sock, len(message)) != message:
                raise ValueError("the answer differs")


host, port, count, parallel = sys.argv[1:]
share = int(count) // int(parallel)
children = []
for _ in range(int(parallel)):
    child = os.fork()
    if child == 0:
        work(host, port, share)
        os._exit(0)
    children.append(child)
failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
if failed:
    sys.exit("a connection failed")
print("ok", share * int(parallel))
