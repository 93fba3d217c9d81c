"""Accepts TLS connections from clients with a certificate and prints who they are.

usage: tls_server.py PORT CERT KEY ROOT

Prints "URI ..." for each such name in the certificate of the client, then closes the connection.
"""
import socket
import ssl
import sys


def names(certificate):
    return [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]


port, cert, key, root = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(cert, key)
context.load_verify_locations(root)
context.verify_mode = ssl.CERT_REQUIRED
context.set_alpn_protocols(["h2"])
listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, _ = listener.accept()
    try:
        with context.wrap_socket(connection, server_side=True) as peer:
            print(peer.version(), peer.selected_alpn_protocol())
            for name in names(peer.getpeercert()):
                print("URI", name)
    except OSError as error:
        print("failed", error)
