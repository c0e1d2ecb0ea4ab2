"""client.py LIBRARY BASE, cases as JSON on stdin: prints one row a line."""

import asyncio
import codecs
import json
import socket
import struct
import sys

import aiohttp
import websockets

from play import Refused, play


def reset(sock):
    """Makes the close of sock an abortive one."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Websockets:
    lacks = ["refusal"]  # the refusing answer's body is not read
    events = None

    async def open(self, url, case):
        self.events = asyncio.Queue()
        self.ws = await websockets.connect(
            url,
            subprotocols=case["protocols"] or None,
            extra_headers=case["headers"],
            compression="deflate" if case["deflate"] else None,
            max_size=1 << 26,
            ping_interval=None,
        )
        self.subprotocol = self.ws.subprotocol
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        try:
            async for data in self.ws:
                self.events.put_nowait(("text" if isinstance(data, str) else "binary", data))
        except websockets.ConnectionClosed:
            pass
        self.events.put_nowait(("close", self.ws.close_code, self.ws.close_reason))

    def header(self, name):
        return self.ws.response_headers.get(name)

    async def text(self, data):
        await self.ws.send(data)

    binary = text

    async def fragments(self, parts):
        # This library fragments text at characters only.
        decoder = codecs.getincrementaldecoder("utf-8")()
        await self.ws.send([decoder.decode(part) for part in parts])

    async def ping(self, data):
        pong = await self.ws.ping(data)
        pong.add_done_callback(lambda _: self.events.put_nowait(("pong", data.encode())))

    async def close(self, code, reason):
        if code:
            await self.ws.close(code, reason)
        else:
            await self.ws.write_close_frame(websockets.frames.Close(1005, ""), b"")

    def abort(self):
        reset(self.ws.transport.get_extra_info("socket"))
        self.ws.transport.abort()

    async def next(self):
        return await self.events.get()


class Aiohttp:
    lacks = ["fragments", "nocode"]

    async def open(self, url, case):
        self.http = aiohttp.ClientSession()
        try:
            self.ws = await self.http.ws_connect(
                aiohttp.client.URL(url, encoded=True),
                protocols=case["protocols"],
                headers=case["headers"],
                compress=15 if case["deflate"] else 0,
                max_msg_size=1 << 26,
                autoclose=False,
                autoping=False,
            )
        except aiohttp.WSServerHandshakeError as err:
            await self.http.close()
            raise Refused(err.status, err.headers, "") from err
        self.subprotocol = self.ws.protocol

    def header(self, name):
        return self.ws._response.headers.get(name)

    async def text(self, data):
        await self.ws.send_str(data)

    async def binary(self, data):
        await self.ws.send_bytes(data)

    async def ping(self, data):
        await self.ws.ping(data.encode())

    async def close(self, code, reason):
        await self.ws.close(code=code, message=reason.encode())
        self.closed = ("close", self.ws.close_code, "")

    closed = None

    def abort(self):
        reset(self.ws.get_extra_info("socket"))
        self.ws._response.connection.transport.abort()

    async def next(self):
        while self.closed is None:
            m = await self.ws.receive()
            if m.type == aiohttp.WSMsgType.TEXT:
                return ("text", m.data)
            if m.type == aiohttp.WSMsgType.BINARY:
                return ("binary", m.data)
            if m.type == aiohttp.WSMsgType.PONG:
                return ("pong", m.data)
            if m.type == aiohttp.WSMsgType.PING:
                await self.ws.pong(m.data)
                continue
            if m.type == aiohttp.WSMsgType.CLOSE:
                self.closed = ("close", m.data, m.extra)
                await self.ws.close(code=m.data or 1000)
            else:
                self.closed = ("close", self.ws.close_code or 1006, "")
        await self.http.close()
        return self.closed


CLIENTS = {"websockets": Websockets, "aiohttp": Aiohttp}


async def main(library, base):
    for case in json.load(sys.stdin):
        print(json.dumps(await play(CLIENTS[library], base, case)), flush=True)


asyncio.run(main(*sys.argv[1:]))
