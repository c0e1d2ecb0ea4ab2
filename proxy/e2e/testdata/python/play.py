"""Plays one case of the matrix on one client library and returns its row:
what that client saw, in order."""

import asyncio
import zlib

QUIET = 10  # seconds that any one step may take


class Refused(Exception):
    def __init__(self, status, headers, body):
        super().__init__(f"refused with {status}")
        self.status, self.headers, self.body = status, headers, body


async def play(client, base, case):
    lacks = [need for need in case["needs"] if need in client.lacks]
    if lacks:
        return {"case": case["name"], "na": ", ".join(lacks)}
    row = []
    try:
        await steps(client(), base, case, row)
    except asyncio.TimeoutError:
        row.append(f"error nothing within {QUIET} s")
    except Exception as err:  # whatever a library throws belongs in the row
        row.append(f"error {type(err).__name__} {err}")
    return {"case": case["name"], "row": row}


async def steps(session, base, case, row):
    try:
        await asyncio.wait_for(session.open(base + case["target"], case), QUIET)
    except Refused as err:
        row.append(f"refused {err.status}")
        row.extend(f"{name}: {err.headers.get(name, '')}" for name in case["show"])
        if case["body"]:
            row.append(f"body {err.body}")
        return
    row.append(f"open {session.subprotocol or ''}".strip())
    row.extend(f"{name}: {session.header(name) or ''}" for name in case["show"])
    for step in case["steps"]:
        op = step["op"]
        if op == "text":
            await session.text(step["text"])
        elif op == "binary":
            await session.binary(pattern(step["size"]))
        elif op == "fragments":
            await session.fragments([bytes.fromhex(p) for p in step["parts"]])
        elif op == "ping":
            await session.ping(step["text"])
        elif op == "recv":
            row.append(show(await asyncio.wait_for(session.next(), QUIET)))
        elif op == "close":
            await session.close(step.get("code", 0), step.get("reason", ""))
            row.append(show(await asyncio.wait_for(session.next(), QUIET)))
        elif op == "abort":
            session.abort()
        else:
            raise ValueError(f"unknown step {op}")


def show(event):
    kind, *rest = event
    if kind == "close":
        code, reason = rest
        return f"close {code} {reason or ''}".strip()
    (data,) = rest
    if kind == "pong":
        return f"pong {data.decode()}"
    raw = data.encode() if kind == "text" else bytes(data)
    if kind == "text" and len(raw) <= 512:
        return f"text {data}"
    if kind == "binary" and len(raw) <= 64:
        return f"binary {raw.hex()}"
    return f"{kind} {len(raw)} {zlib.crc32(raw):08x}"


def pattern(size):
    return bytes((i * 31 + (i >> 8)) & 255 for i in range(size))
