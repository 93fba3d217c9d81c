"""Speaks something else than HTTP once an upgrade has been agreed on.

usage: upgrade.py serve PORT
       upgrade.py ask HOST PORT PATH [PROTOCOL]

The server prints a line for each request: the number of its connection, method, path, and the protocol
that is asked for or "-". By the path it

/echo    agrees, sends "greeting" at once, then echoes until the end, sends " farewell" and ends
/first   agrees, sends "all said" and ends its side, then prints how many bytes come
/refuse  answers 400 and keeps the connection
/ignore  answers 200 as if nothing had been asked
/unasked switches whatever the client has asked for

The client asks and prints the status. After an agreement it sends "ping", ends its side and prints what
arrives to the end; after "all said" it sends a mebibyte and prints "sent". Where none is to be expected,
it sends a second request, for /second, in the same segment, and prints the status of that, too, if there
is an answer.
"""
import itertools
import socket
import socketserver
import sys

from lib import DualStackServer, connect

numbers = itertools.count(1)
MEBIBYTE = 1 << 20


def read_head(stream):
    """Returns the first line of a head and its fields, or None at the end."""
    first = stream.readline().decode().strip()
    if not first:
        return None
    fields = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return first, fields


class Peer(socketserver.StreamRequestHandler):
    def handle(self):
        number = next(numbers)
        while head := read_head(self.rfile):
            first, fields = head
            method, path, _ = first.split()
            protocol = fields.get("upgrade", "-")
            print(f"connection={number} {method} {path} {protocol}")
            if path == "/unasked" or (protocol != "-" and path in ("/echo", "/first")):
                self.wfile.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                    b"Upgrade: " + protocol.encode() + b"\r\n\r\n"
                    + (b"greeting " if path == "/echo" else b"all said")
                )
                return self.first() if path == "/first" else self.echo()
            status = "400 Bad Request" if path == "/refuse" else "200 OK"
            self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nno\n".encode())

    def echo(self):
        while data := self.rfile.read1():
            self.wfile.write(data)
        self.wfile.write(b" farewell")

    def first(self):
        self.request.shutdown(socket.SHUT_WR)
        print("received", len(self.rfile.read()))


def request(host, path, fields=""):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()


def ask(host, port, path, protocol="plain"):
    sock = connect(host, port)
    agrees = path in ("/echo", "/first")
    fields = f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n"
    sock.sendall(request(host, path, fields) + (b"" if agrees else request(host, "/second")))
    stream = sock.makefile("rb")
    first, fields = read_head(stream)
    status = first.split()[1]
    print(status, fields.get("upgrade", "-"))
    if status != "101":
        stream.read(int(fields["content-length"]))
        if not agrees and (second := read_head(stream)):
            print(second[0].split()[1])
    elif path == "/first":
        print(stream.read().decode())
        sock.sendall(bytes(MEBIBYTE))
        sock.shutdown(socket.SHUT_WR)
        print("sent")
    else:
        sock.sendall(b"ping")
        sock.shutdown(socket.SHUT_WR)
        print(stream.read().decode())


if sys.argv[1] == "serve":
    DualStackServer(int(sys.argv[2]), Peer).serve_forever()
else:
    ask(*sys.argv[2:])
