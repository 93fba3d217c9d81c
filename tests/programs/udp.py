"""Echoes datagrams, or sends one and prints the answer, or the error that the kernel reports.

usage: udp.py serve PORT
       udp.py send HOST PORT TEXT      by a socket that is not connected
       udp.py connect HOST PORT TEXT   by a connected socket
"""
import errno
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
    way, host, port, text = sys.argv[1:]
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    try:
        if way == "connect":
            sock.connect((host, int(port)))
            sock.send(text.encode())
        else:
            sock.sendto(text.encode(), (host, int(port)))
        data, peer = sock.recvfrom(2048)
        print("answer", data.decode(), "from", peer[0])
    except TimeoutError:
        print("nothing")
    except OSError as error:
        print("error", errno.errorcode[error.errno])
