"""A server and a client of WebSocket, as the library of that name makes them.

usage: websocket.py serve PORT NAME
       websocket.py talk HOST PORT PATH

The server answers every message with "NAME PATH MESSAGE", of the same kind as the message, and a
handshake for /refuse with 418. The client prints "connected", sends a message for each line of its input
and prints each answer: "received ..." for a text; "bytes N" makes a message of so many bytes, whose
answer is printed as "received N bytes". At the end of its input it closes and prints "closed CODE".
A handshake that fails is printed as "refused STATUS".
"""
import asyncio
import http
import sys

import websockets

MAX_BYTES = 64 << 20


async def serve(port, name):
    async def refuse(path, _):
        if path == "/refuse":
            return http.HTTPStatus.IM_A_TEAPOT, [], b"no WebSocket here\n"

    async def answer(socket):
        async for message in socket:
            prefix = f"{name} {socket.path} "
            await socket.send(message if isinstance(message, bytes) else prefix + message)

    options = {"max_size": MAX_BYTES, "process_request": refuse}
    async with websockets.serve(answer, None, int(port), **options):
        await asyncio.Future()


async def talk(host, port, path):
    loop = asyncio.get_running_loop()
    try:
        socket = await websockets.connect(f"ws://{host}:{port}{path}", max_size=MAX_BYTES)
    except websockets.InvalidStatusCode as error:
        return print("refused", error.status_code)
    print("connected")
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        words = line.split()
        await socket.send(bytes(int(words[1])) if words[0] == "bytes" else line)
        answer = await socket.recv()
        print("received", f"{len(answer)} bytes" if isinstance(answer, bytes) else answer)
    await socket.close()
    print("closed", socket.close_code)


asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
