"""Offers TLS up to a version, as a client without certificate; prints its port and how it went.

usage: tls_client.py HOST PORT VERSION    such as TLSv1_2
"""
import ssl
import sys

from lib import connect

host, port, version = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.maximum_version = ssl.TLSVersion[version]
context.set_alpn_protocols(["h2"])
sock = connect(host, port)
print(sock.getsockname()[1])
try:
    with context.wrap_socket(sock) as tls:
        print("accepted", tls.version())
except ssl.SSLError as error:
    print("refused", error.reason)
