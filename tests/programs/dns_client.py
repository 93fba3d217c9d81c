"""Asks for names in the ways of well-known resolvers, and prints what comes back.

usage: dns_client.py musl SERVER NAME       A and AAAA at once, by one socket that is not connected
       dns_client.py connected SERVER NAME  with EDNS, by a connected socket
       dns_client.py kept SERVER NAME       the same socket for each line of input
       dns_client.py many SERVER NAME       one after the other until the end of input; counts failures
       dns_client.py flood SERVER NAME      hundreds at once; counts those that are refused
       dns_client.py raw SERVER HEX         any datagram
"""
import select
import socket
import sys
import threading
import time

import dns

way, server, what = sys.argv[1:]
family = socket.AF_INET6 if ":" in server else socket.AF_INET


def show(message, peer):
    _, flags, records = dns.answers(message)
    said = [f"{kind} {text(kind, data)}" for _, kind, data in records]
    cut = " cut" if flags & 0x0200 else ""
    print(f"from {peer[0]} port {peer[1]} result {flags & 15}{cut}:", ", ".join(sorted(said)))


def text(kind, data):
    if kind == "A":
        return socket.inet_ntop(socket.AF_INET, data)
    if kind == "AAAA":
        return socket.inet_ntop(socket.AF_INET6, data)
    return data if isinstance(data, str) else data[1:].decode()


def connected():
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.connect((server, 53))
    return sock


def ask(sock, number):
    sock.send(dns.query(number, what, "A", 1232))
    return sock.recvfrom(4096)


if way == "musl":
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(5)
    for number, kind in [(1, "A"), (2, "AAAA")]:
        sock.sendto(dns.query(number, what, kind), (server, 53))
    answers = dict()
    while len(answers) < 2:
        message, peer = sock.recvfrom(4096)
        answers[dns.answers(message)[0]] = (message, peer)
    for number in sorted(answers):
        show(*answers[number])
elif way == "connected":
    sock = connected()
    show(*ask(sock, 7))
    print("peer", sock.getpeername()[0], sock.getpeername()[1])
elif way == "kept":
    sock = connected()
    for number, _ in enumerate(sys.stdin):
        try:
            show(*ask(sock, number))
        except OSError as error:
            print("error", type(error).__name__)
            sock = connected()
elif way == "many":
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    number = failed = 0
    while not done.is_set():
        number += 1
        sock = connected()
        sock.settimeout(2)
        try:
            ask(sock, number & 0xFFFF)
        except OSError as error:
            failed += 1
            print("failed", number, type(error).__name__)
        sock.close()
    print("asked", number, "failed", failed)
elif way == "flood":
    # As many queries as there are numbers here, a few at a time: the socket's buffer is small.
    sock = connected()
    sock.setblocking(False)
    failed = 0
    for number in range(600):
        sock.send(dns.query(number, what, "A"))
        time.sleep(0.001)
        try:
            failed += dns.answers(sock.recv(4096))[1] & 15 == 2
        except BlockingIOError:
            pass
    while select.select([sock], [], [], 0.5)[0]:
        failed += dns.answers(sock.recv(4096))[1] & 15 == 2
    print("refused", failed)
    sys.stdin.read()
elif way == "raw":
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(0.5)
    sock.sendto(bytes.fromhex(what), (server, 53))
    try:
        print("answer", sock.recv(4096).hex())
    except TimeoutError:
        print("nothing")
