"""What the programs share."""
import hashlib
import socket
import socketserver

CHUNK = 256 * 1024


class DualStackServer(socketserver.ThreadingTCPServer):
    """Listens on IPv4 and IPv6; IPv4 clients appear as ::ffff:a.b.c.d."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port, handler):
        super().__init__(("::", port), handler)

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def connect(host, port):
    return socket.create_connection((host, int(port)), timeout=30)


def chunks(size, seed):
    """Yields size bytes that differ from chunk to chunk, so that a lost or doubled one shows."""
    block = hashlib.shake_256(seed).digest(CHUNK)
    number = 0
    while size > 0:
        head = number.to_bytes(8, "big")
        chunk = (head + block[8:])[: min(CHUNK, size)]
        yield chunk
        size -= len(chunk)
        number += 1


def send_chunks(sock, size, seed):
    """Sends size bytes and returns their digest."""
    digest = hashlib.sha256()
    for chunk in chunks(size, seed):
        sock.sendall(chunk)
        digest.update(chunk)
    return digest.digest()


def receive(sock, size):
    """Receives exactly size bytes and returns them."""
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError(f"end after {len(data)} of {size} bytes")
        data += part
    return data


def digest_to_end(sock, limit=None):
    """Receives up to the end, or limit bytes; returns (bytes, digest)."""
    digest = hashlib.sha256()
    total = 0
    while limit is None or total < limit:
        data = sock.recv(CHUNK if limit is None else min(CHUNK, limit - total))
        if not data:
            break
        digest.update(data)
        total += len(data)
    return total, digest.digest()
