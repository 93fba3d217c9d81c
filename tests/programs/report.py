"""Answers every request with what arrived, as a line of JSON.

usage: report.py NAME PORT...

The line has the server's NAME, the method, the path with its query, the host and the headers; several
headers of one name are joined with commas. A request whose header x-answer-after has a number is
answered after so many seconds; one with x-answer-status gets that status.
"""
import http.server
import json
import sys
import threading
import time

from lib import DualStackServer


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = sys.argv[1]

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(float(self.headers.get("x-answer-after", 0)))
        headers = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        report = {
            "pod": self.name,
            "method": self.command,
            "path": self.path,
            "host": self.headers.get("host", ""),
            "headers": {name: ",".join(values) for name, values in headers.items()},
        }
        print(self.command, self.path, flush=True)
        body = json.dumps(report).encode() + b"\n"
        self.send_response(int(self.headers.get("x-answer-status", 200)))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            # Unsaid, a client with many requests may send another one on a connection that ends.
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        pass


servers = [DualStackServer(int(port), Handler) for port in sys.argv[2:]]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
