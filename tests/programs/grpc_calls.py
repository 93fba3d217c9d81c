"""A server and a client of gRPC, as the library of that name makes them; messages are plain bytes.

usage: grpc_calls.py serve PORT NAME
       grpc_calls.py call HOST PORT KIND [OPTIONS...]
       grpc_calls.py talk HOST PORT

Methods of the server, under /lab.Calls/:

Unary    answers with the message, with the server's name in the initial metadata and the length in the
         trailing one; fails with status N and details "asked for" if the metadata has fail: N
Spread   answers "0", "1" and so on, as many as the message says
Gather   answers with the number of messages and of bytes
Chat     answers each message with the server's name before it
Slow     answers after as many milliseconds as the message says

Kinds of calls: unary BYTES | fail CODE | spread N | gather N BYTES | slow MS TIMEOUT_MS. The client prints
what came, or "CODE details" of a failure. "talk" opens a Chat, says each line of its input and prints
each answer; at the end of the input it closes its side and prints the status.
"""
import queue
import sys
import time
from concurrent import futures

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
STATUS = {code.value[0]: code for code in grpc.StatusCode}


class Calls(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name.encode()
        self.methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Spread": grpc.unary_stream_rpc_method_handler(self.spread),
            "Gather": grpc.stream_unary_rpc_method_handler(self.gather),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Slow": grpc.unary_unary_rpc_method_handler(self.slow),
        }

    def service(self, details):
        return self.methods.get(details.method.removeprefix("/lab.Calls/"))

    def unary(self, message, context):
        asked = dict(context.invocation_metadata())
        print("unary", self.name.decode(), asked.get("x-envoy-attempt-count", "-"))
        if "fail" in asked:
            # Before any metadata: what has begun to be answered is tried again by nobody.
            context.abort(STATUS[int(asked["fail"])], "asked for")
        context.send_initial_metadata([("x-server", self.name)])
        context.set_trailing_metadata([("x-length", str(len(message)))])
        return message

    def spread(self, message, _):
        for number in range(int(message)):
            yield str(number).encode()

    def gather(self, messages, _):
        sizes = [len(message) for message in messages]
        return f"{len(sizes)} {sum(sizes)}".encode()

    def chat(self, messages, _):
        for message in messages:
            yield self.name + b" " + message

    def slow(self, message, _):
        time.sleep(int(message) / 1000)
        return b"late"


def serve(port, name):
    server = grpc.server(futures.ThreadPoolExecutor(16), options=OPTIONS)
    server.add_generic_rpc_handlers([Calls(name)])
    if not server.add_insecure_port(f"[::]:{port}"):
        sys.exit("the port is taken")
    server.start()
    server.wait_for_termination()


def unary(channel, size):
    call = channel.unary_unary("/lab.Calls/Unary")
    answer, rpc = call.with_call(bytes(int(size)))
    initial, trailing = dict(rpc.initial_metadata()), dict(rpc.trailing_metadata())
    print(len(answer), initial["x-server"], trailing["x-length"])


def fail(channel, code):
    channel.unary_unary("/lab.Calls/Unary")(b"", metadata=[("fail", code)])


def spread(channel, number):
    answers = list(channel.unary_stream("/lab.Calls/Spread")(number.encode()))
    print(len(answers), answers[-1].decode())


def gather(channel, number, size):
    messages = (bytes(int(size)) for _ in range(int(number)))
    print(channel.stream_unary("/lab.Calls/Gather")(messages).decode())


def slow(channel, pause, limit):
    started = time.monotonic()
    try:
        channel.unary_unary("/lab.Calls/Slow")(pause.encode(), timeout=int(limit) / 1000)
    finally:
        print("took", round(time.monotonic() - started))


def connect(host, port):
    return grpc.insecure_channel(f"{host}:{port}", options=OPTIONS)


def call(host, port, kind, *options):
    with connect(host, port) as channel:
        try:
            globals()[kind](channel, *options)
            print("OK")
        except grpc.RpcError as error:
            print(error.code().name, error.details())


def talk(host, port):
    lines = queue.Queue()
    with connect(host, port) as channel:
        answers = channel.stream_stream("/lab.Calls/Chat")(iter(lines.get, None))
        for line in sys.stdin:
            lines.put(line.strip().encode())
            print("received", next(answers).decode())
        lines.put(None)
        print("rest", len(list(answers)), answers.code().name)


{"serve": serve, "call": call, "talk": talk}[sys.argv[1]](*sys.argv[2:])
