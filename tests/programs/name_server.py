"""A name server that knows everything below "example", and says who asked.

usage: name_server.py PORT

The first label of a name decides: big (does not fit a datagram), silent (no answer), missing (no
such name), who (TXT with protocol and address of the client), at-10-2-0-2 (that address and no
other), late-at-10-2-0-2 (the same, after a while); others have the address 192.0.2.1.
"""
import socket
import socketserver
import struct
import sys
import threading
import time

import dns
from lib import DualStackServer, receive

TTL = 60
# Seconds; those who ask wait for two.
WHILE = 0.5
BIG = 100


def record(kind, data, ttl=TTL):
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def answer(message, protocol, client):
    """Returns the answer, or None."""
    number, name, kind, end = dns.question(message)
    print("query", protocol, name, dns.NAMES.get(kind, kind), "from", client, message.hex())
    first = name.split(".")[0].lower()
    if first.startswith("late-"):
        time.sleep(WHILE)
        first = first.removeprefix("late-")
    flags, records = 0x8180, []
    if first == "silent":
        return None
    if first == "missing":
        flags |= 3
    elif first == "who" and kind == dns.TXT:
        text = f"{protocol} {client}".encode()
        records = [record(dns.TXT, bytes([len(text)]) + text)]
    elif first == "big" and protocol == "udp":
        flags |= 0x0200
    elif first == "big" and kind == dns.A:
        records = [record(dns.A, bytes([198, 51, 100, n])) for n in range(BIG)]
    elif first.startswith("at-"):
        if kind == dns.A:
            records = [record(dns.A, bytes(map(int, first.split("-")[1:])))]
    elif kind == dns.A:
        records = [record(dns.A, bytes([192, 0, 2, 1]), 1 if first == "brief" else TTL)]
    elif kind == dns.SRV:
        data = struct.pack("!HHH", 1, 2, 5353) + dns.name_bytes("target.example")
        records = [record(dns.SRV, data)]
    header = struct.pack("!HHHHHH", number, flags, 1, len(records), 0, 0)
    return header + message[12:end] + b"".join(records)


def canonical(address):
    return address.removeprefix("::ffff:")


def serve_datagrams(sock):
    while True:
        # Answers come from the address that was asked, as of any server with several.
        message, control, _, client = sock.recvmsg(4096, 1024)
        try:
            said = answer(message, "udp", canonical(client[0]))
        except (IndexError, ValueError, struct.error):
            said = None
        if said:
            own = [(level, kind, data) for level, kind, data in control if kind == 50]
            sock.sendmsg([said], own, 0, client)


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            try:
                length = struct.unpack("!H", receive(self.request, 2))[0]
            except EOFError:
                return
            message = receive(self.request, length)
            said = answer(message, "tcp", canonical(self.client_address[0]))
            self.request.sendall(struct.pack("!H", len(said)) + said)


datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
datagrams.bind(("::", int(sys.argv[1])))
threading.Thread(target=serve_datagrams, args=[datagrams], daemon=True).start()
DualStackServer(int(sys.argv[1]), Handler).serve_forever()
