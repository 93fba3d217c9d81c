"""DNS messages, as far as the name server and the clients of the tests need them."""
import struct

A, CNAME, TXT, AAAA, SRV, OPT = 1, 5, 16, 28, 33, 41
TYPES = {"A": A, "CNAME": CNAME, "TXT": TXT, "AAAA": AAAA, "SRV": SRV}
NAMES = {number: name for name, number in TYPES.items()}


def name_bytes(name):
    labels = [label for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def read_name(message, at):
    """Returns the name at a place and the place behind it."""
    labels, behind, start = [], None, 0
    while True:
        length = message[at]
        if length & 0xC0 == 0xC0:
            if behind and at >= start:
                raise ValueError("a name that points forward")
            behind, start = behind or at + 2, at
            at = struct.unpack_from("!H", message, at)[0] & 0x3FFF
            continue
        if length == 0:
            return ".".join(labels), behind or at + 1
        labels.append(message[at + 1:at + 1 + length].decode())
        at += 1 + length


def query(number, name, kind, payload=None):
    """A query; with EDNS if the client says what it takes."""
    more = b"" if payload is None else b"\0" + struct.pack("!HHIH", OPT, payload, 0, 0)
    header = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 1 if more else 0)
    return header + name_bytes(name) + struct.pack("!HH", TYPES[kind], 1) + more


def question(message):
    """Returns number, name, type and what follows the question of a query."""
    number = struct.unpack_from("!H", message)[0]
    name, at = read_name(message, 12)
    return number, name, struct.unpack_from("!H", message, at)[0], at + 4


def answers(message):
    """Returns number, flags and the records of the answer section: (name, type, data)."""
    number, flags, questions, count = struct.unpack_from("!HHHH", message)
    at = 12
    for _ in range(questions):
        at = read_name(message, at)[1] + 4
    records = []
    for _ in range(count):
        name, at = read_name(message, at)
        kind, _, _, length = struct.unpack_from("!HHIH", message, at)
        at += 10
        data = message[at:at + length]
        if kind == CNAME:
            data = read_name(message, at)[0]
        records.append((name, NAMES.get(kind, kind), data))
        at += length
    return number, flags, records
