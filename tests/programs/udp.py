"""Echoes datagrams, or sends one and prints the answer.

usage: udp.py serve PORT
       udp.py send HOST PORT TEXT
"""
import socket
import sys

if sys.argv[1] == "serve":
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", int(sys.argv[2])))
    print("ready")
    while True:
        data, peer = sock.recvfrom(2048)
        sock.sendto(data, peer)
else:
    host, port, text = sys.argv[2:]
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.sendto(text.encode(), (host, int(port)))
    data, peer = sock.recvfrom(2048)
    print("answer", data.decode(), "from", peer[0])
