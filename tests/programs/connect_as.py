"""Connects in an unusual way, sends a text, prints what comes back.

usage: connect_as.py WAY HOST PORT TEXT [ARGUMENT]

ways: plain
      mark       sets the mark ARGUMENT on the socket before it connects
      device     binds the socket to the device ARGUMENT first
      bind       binds the socket to its own address and port ARGUMENT first
      mapped     connects an IPv6 socket to the IPv4-mapped address
      mptcp      opens a Multipath TCP socket
      fastopen   sends the text along with the SYN
      deferred   asks for TCP Fast Open at the first write
      thread     connects from a thread, not the main one
      nonblocking  does not wait for the connection to be made
      name       calls itself ARGUMENT first
      cgroup     moves itself to the cgroup (v2) ARGUMENT first
      foreign    makes the socket in the network namespace at ARGUMENT
      enters     enters the network namespace at ARGUMENT, then makes the socket
"""
import ctypes
import select
import socket
import struct
import sys
import threading

CLONE_NEWNET = 0x40000000
IPPROTO_MPTCP = 262
PR_SET_NAME = 15
SO_BINDTODEVICE = 25
SO_MARK = 36
TCP_FASTOPEN_CONNECT = 30

libc = ctypes.CDLL(None, use_errno=True)


def enter(path):
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def stream(family=None, protocol=0):
    if family is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    sock.settimeout(5)
    return sock


def opened(argument):
    """Returns a socket that is ready to connect."""
    if way == "mptcp":
        return stream(protocol=IPPROTO_MPTCP)
    if way == "mapped":
        return stream(family=socket.AF_INET6)
    if way == "foreign":
        with open("/proc/self/ns/net") as own:
            enter(argument)
            sock = stream()
            libc.setns(own.fileno(), CLONE_NEWNET)
        return sock
    if way == "enters":
        enter(argument)
    if way == "name":
        libc.prctl(PR_SET_NAME, argument.encode(), 0, 0, 0)
    if way == "cgroup":
        with open(argument + "/cgroup.procs", "w") as procs:
            procs.write("0")
    sock = stream()
    if way == "mark":
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", int(argument, 0)))
    if way == "device":
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, argument.encode())
    if way == "bind":
        sock.bind((argument, 0))
    if way == "deferred":
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    return sock


def exchange(sock):
    if way == "fastopen":
        # With a time limit the socket would not block, and the call not wait for the connection.
        sock.setblocking(True)
        sock.sendto(text, socket.MSG_FASTOPEN, (host, port))
    else:
        if way == "nonblocking":
            sock.setblocking(False)
            sock.connect_ex((host, port))
            select.select([], [sock], [], 5)
            sock.settimeout(5)
        else:
            sock.connect(("::ffff:" + host if way == "mapped" else host, port))
        sock.sendall(text)
    answer = b""
    while len(answer) < len(text):
        part = sock.recv(4096)
        if not part:
            sys.exit("closed")
        answer += part
    print("local_port", sock.getsockname()[1])
    print("answer", answer.decode())


way, host, port, text = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
sock = opened(sys.argv[5] if len(sys.argv) > 5 else None)
if way == "thread":
    worker = threading.Thread(target=exchange, args=(sock,))
    worker.start()
    worker.join()
else:
    exchange(sock)
