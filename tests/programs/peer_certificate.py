"""Prints a digest of the certificate that a TLS server shows to a client that has none.

usage: peer_certificate.py HOST PORT
"""
import hashlib
import ssl
import sys

from lib import connect

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
with context.wrap_socket(connect(sys.argv[1], sys.argv[2])) as sock:
    print(hashlib.sha256(sock.getpeercert(binary_form=True)).hexdigest())
