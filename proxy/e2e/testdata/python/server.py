"""server.py LIBRARY: serves on a free port until its end, printing
{"port":N} and then one line for each thing that it saw."""

import asyncio
import json
import re
import socket
import struct
import sys
from http import HTTPStatus
from urllib.parse import parse_qs

import aiohttp
import websockets
from aiohttp import web
from play import pattern

PROTOCOLS = ["chat.v2", "chat.v1"]
COOKIE = "seen=1; Path=/"
SHOWN = ["cookie", "authorization", "x-e2e", "sec-websocket-protocol"]
FRAGMENTS = ["l", "ég", "☃r"]


def refusal(target):
    m = re.match(r"/refuse/(\d+)", target)
    if not m:
        return None
    headers = {
        "Content-Type": "application/json",
        "Retry-After": "7",
        "WWW-Authenticate": 'Bearer realm="e2e"',
        "X-Refused": "yes",
    }
    return int(m[1]), headers, '{"refused":%s}' % m[1]


def emit(line):
    print(json.dumps(line), flush=True)


class Session:
    """Echoes, and obeys the commands that begin with "!"."""

    def __init__(self, target, headers, ws):
        self.target, self.headers, self.ws = target, headers, ws
        self.key = parse_qs(target.partition("?")[2]).get("k", [""])[0]

    def report(self, event):
        emit({"key": self.key, "event": event.strip()})

    async def text(self, data):
        command, *args = data.split(" ")
        if command == "!request":
            lines = [f"target {self.target}"]
            lines += [f"{name} {self.headers.get(name, '')}".strip() for name in SHOWN]
            await self.ws.text("\n".join(lines))
        elif command == "!extensions":
            await self.ws.text(f"extensions {self.headers.get('sec-websocket-extensions', '')}".strip())
        elif command == "!close":
            self.report(f"closes {' '.join(args)}")
            await self.ws.close(int(args[0]) if args else 0, " ".join(args[1:]))
        elif command == "!ping":
            await self.ws.ping(args[0].encode())
        elif command == "!fragments":
            await self.ws.fragments(FRAGMENTS)
        elif command == "!abort":
            self.report("aborts")
            self.ws.abort()
        elif command == "!big":
            await self.ws.binary(pattern(int(args[0])))
        else:
            await self.ws.text(data)

    async def pong(self, data):
        self.report(f"pong {data.decode()}")
        await self.ws.text(f"pong {data.decode()}")

    def closed(self, code, reason):
        self.report(f"close {code} {reason or ''}")


def abort(transport):
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Websockets:
    def __init__(self, ws):
        self.ws = ws

    async def text(self, data):
        await self.ws.send(data)

    binary = text

    async def fragments(self, parts):
        await self.ws.send(parts)

    async def ping(self, data):
        pong = await self.ws.ping(data)
        pong.add_done_callback(lambda _: asyncio.ensure_future(self.session.pong(data)))

    async def close(self, code, reason):
        if code:
            await self.ws.close(code, reason)
        else:
            await self.ws.write_close_frame(websockets.frames.Close(1005, ""), b"")

    def abort(self):
        abort(self.ws.transport)


async def serve_websockets():
    async def process_request(path, headers):
        r = refusal(path)
        return r and (HTTPStatus(r[0]), r[1], r[2].encode())

    async def handle(ws):
        out = Websockets(ws)
        s = out.session = Session(ws.path, ws.request_headers, out)
        if ws.path.startswith("/greet"):
            await ws.send("welcome")
        try:
            async for data in ws:
                await (s.text(data) if isinstance(data, str) else ws.send(data))
        except websockets.ConnectionClosed:
            pass
        s.closed(ws.close_code, ws.close_reason)

    server = await websockets.serve(
        handle,
        "127.0.0.1",
        0,
        process_request=process_request,
        extra_headers={"Set-Cookie": COOKIE, "X-Server": "e2e"},
        subprotocols=PROTOCOLS,
        select_subprotocol=lambda offered, ours: next((p for p in ours if p in offered), None),
        max_size=64 << 20,
        ping_interval=None,
        backlog=4096,
    )
    return server.sockets[0].getsockname()[1]


class Aiohttp:
    def __init__(self, request, ws):
        self.request, self.ws = request, ws

    async def text(self, data):
        await self.ws.send_str(data)

    async def binary(self, data):
        await self.ws.send_bytes(data)

    async def ping(self, data):
        await self.ws.ping(data)

    async def close(self, code, reason):
        await self.ws.close(code=code or 1000, message=reason.encode())

    def abort(self):
        abort(self.request.transport)


async def serve_aiohttp():
    async def handle(request):
        r = refusal(request.raw_path)
        if r:
            return web.Response(status=r[0], headers=r[1], text=r[2])
        ws = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=64 << 20, autoping=False, autoclose=False)
        ws.headers["X-Server"] = "e2e"
        ws.headers["Set-Cookie"] = COOKIE
        await ws.prepare(request)
        s = Session(request.raw_path, request.headers, Aiohttp(request, ws))
        if request.raw_path.startswith("/greet"):
            await ws.send_str("welcome")
        while True:
            m = await ws.receive()
            if m.type == aiohttp.WSMsgType.TEXT:
                await s.text(m.data)
            elif m.type == aiohttp.WSMsgType.BINARY:
                await ws.send_bytes(m.data)
            elif m.type == aiohttp.WSMsgType.PING:
                await ws.pong(m.data)
            elif m.type == aiohttp.WSMsgType.PONG:
                await s.pong(bytes(m.data))
            elif m.type == aiohttp.WSMsgType.CLOSE:
                await ws.close(code=m.data or 1000)
                s.closed(m.data or 1005, m.extra)
                return ws
            else:
                s.closed(ws.close_code or 1006, "")
                return ws

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    return site._server.sockets[0].getsockname()[1]


SERVERS = {"websockets": serve_websockets, "aiohttp": serve_aiohttp}


async def main(library):
    emit({"port": await SERVERS[library]()})
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
