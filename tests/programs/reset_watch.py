"""Resets a connection at one end and tells when the other end saw it, also when it does not read.

usage: reset_watch.py serve PORT
       reset_watch.py run HOST PORT client|server idle|push|pull|ended

The third argument names the end that resets. Before it does, it has sent until nothing more fits
(push), or the other end has (pull), or the other end has ended its side and this one has sent until
nothing more fits (ended). Both ends print the time: "resets TIME", and "saw reset|end|nothing TIME".
"""
import errno
import fcntl
import select
import socket
import socketserver
import struct
import sys
import termios
import time

from lib import CHUNK, DualStackServer, connect, receive

ENDS = ["client", "server"]
MODES = ["idle", "push", "pull", "ended"]
QUIET_SECONDS = 0.2
PATIENCE_SECONDS = 5


def fill(sock):
    """Sends until nothing was taken for a while."""
    sock.setblocking(False)
    writable = select.poll()
    writable.register(sock, select.POLLOUT)
    data = bytes(CHUNK)
    while any(events & select.POLLOUT for _, events in writable.poll(QUIET_SECONDS * 1000)):
        try:
            sock.send(data)
        except BlockingIOError:
            pass


def unread(sock):
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]


def wait_quiet(sock):
    """Waits until the bytes to read have not increased for longer than the other end's `fill`."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 3 * QUIET_SECONDS:
        now = unread(sock)
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.01)


def resets(sock, mode):
    if mode in ("push", "ended"):
        fill(sock)
    wait_quiet(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    print(f"resets {time.time():.6f}")
    sock.close()


def watches(sock, mode):
    """Looks for the reset without reading, as a program does that waits for something else."""
    if mode == "ended":
        sock.shutdown(socket.SHUT_WR)
    if mode == "pull":
        fill(sock)
    errors = select.poll()
    errors.register(sock, 0)
    events = errors.poll(PATIENCE_SECONDS * 1000)
    now = time.time()
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    # After the end in both directions, a reset is a broken pipe to Linux.
    seen = "reset" if error in (errno.ECONNRESET, errno.EPIPE) else "end" if events else "nothing"
    print(f"saw {seen} {now:.6f}")


class Peer(socketserver.BaseRequestHandler):
    def handle(self):
        end, mode = receive(self.request, 2)
        self.request.sendall(b"!")
        (resets if ENDS[end] == "server" else watches)(self.request, MODES[mode])


class Server(DualStackServer):
    def shutdown_request(self, request):
        """Leaves out the orderly end."""


def run(host, port, end, mode):
    sock = connect(host, port)
    sock.sendall(bytes([ENDS.index(end), MODES.index(mode)]))
    receive(sock, 1)
    (resets if end == "client" else watches)(sock, mode)


if sys.argv[1] == "serve":
    Server(int(sys.argv[2]), Peer).serve_forever()
else:
    run(*sys.argv[2:])
