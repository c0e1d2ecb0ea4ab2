// One adapter for each client library of the matrix.
import http from 'node:http'
import faye from 'faye-websocket'
import { WebSocket as undici } from 'undici'
import theturtle from 'websocket'
import WebSocket from 'ws'
import { Inbox, Refused } from './play.mjs'
import { whatwg } from './whatwg.mjs'

function refusal(res, reject) {
  const chunks = []
  res.on('data', chunk => chunks.push(chunk))
  res.on('end', () => reject(new Refused(res.statusCode, res.headers, Buffer.concat(chunks).toString())))
}

// ws and the others fail with what the server sends next when the rest of a
// conversation is abnormal; the close event that follows says as much.
const ignore = () => {}

const ws = {
  lacks: [],
  open(url, c) {
    return new Promise((resolve, reject) => {
      const inbox = new Inbox()
      let response
      const ws = new WebSocket(url, c.protocols, { headers: c.headers, perMessageDeflate: c.deflate && { threshold: 0 } })
      ws.on('upgrade', res => { response = res })
      ws.on('unexpected-response', (_, res) => refusal(res, reject))
      ws.on('error', reject)
      ws.on('message', (data, binary) => inbox.push(
        binary ? { kind: 'binary', data } : { kind: 'text', data: data.toString() }))
      ws.on('pong', data => inbox.push({ kind: 'pong', data: data.toString() }))
      ws.on('close', (code, reason) => inbox.push({ kind: 'close', code, reason: reason.toString() }))
      ws.on('open', () => resolve({
        inbox,
        subprotocol: ws.protocol,
        header: name => response.headers[name],
        text: s => ws.send(s),
        binary: data => ws.send(data),
        fragments: parts => parts.forEach((part, i) => ws.send(part, { binary: false, fin: i === parts.length - 1 })),
        ping: s => ws.ping(s),
        close: (code, reason) => ws.close(code, reason),
        abort: () => ws._socket.resetAndDestroy(),
      }))
    })
  },
}

const fayeClient = {
  lacks: ['fragments', 'refusal', 'deflate', 'abort', 'codes', 'nocode'],
  open(url, c) {
    return new Promise((resolve, reject) => {
      const inbox = new Inbox()
      const ws = new faye.Client(url, c.protocols, { headers: c.headers })
      ws.on('error', reject)
      ws.on('message', ({ data }) => inbox.push(
        typeof data === 'string' ? { kind: 'text', data } : { kind: 'binary', data: new Uint8Array(data) }))
      ws.on('close', ({ code, reason }) => inbox.push({ kind: 'close', code, reason }))
      ws.on('open', () => resolve({
        inbox,
        subprotocol: ws.protocol,
        header: name => ws.headers[name],
        text: s => ws.send(s),
        binary: data => ws.send(Buffer.from(data)),
        ping: s => ws.ping(s, () => inbox.push({ kind: 'pong', data: s })),
        close: (code, reason) => ws.close(code, reason),
      }))
    })
  },
}

const websocket = {
  lacks: ['deflate', 'nocode'],
  open(url, c) {
    return new Promise((resolve, reject) => {
      const inbox = new Inbox()
      const client = new theturtle.client({ maxReceivedFrameSize: 1 << 26, maxReceivedMessageSize: 1 << 26 })
      client.on('httpResponse', res => refusal(res, reject))
      client.on('connectFailed', reject)
      client.on('connect', conn => {
        conn.on('error', ignore)
        conn.on('message', m => inbox.push(
          m.type === 'utf8' ? { kind: 'text', data: m.utf8Data } : { kind: 'binary', data: m.binaryData }))
        conn.on('pong', data => inbox.push({ kind: 'pong', data: data.toString() }))
        conn.on('close', (code, reason) => inbox.push({ kind: 'close', code, reason: code === 1006 || code === 1005 ? '' : reason }))
        resolve({
          inbox,
          subprotocol: conn.protocol,
          header: name => client.response.headers[name],
          text: s => conn.sendUTF(s),
          binary: data => conn.sendBytes(Buffer.from(data)),
          fragments: parts => parts.forEach((part, i) => fragment(conn, part, i, parts.length)),
          ping: s => conn.ping(s),
          close: (code, reason) => conn.close(code, reason),
          abort: () => conn.socket.resetAndDestroy(),
        })
      })
      client.connect(url, c.protocols, null, c.headers)
    })
  },
}

function fragment(conn, part, i, n) {
  const f = new theturtle.frame(Buffer.alloc(4), Buffer.alloc(10), conn.config)
  Object.assign(f, { opcode: i === 0 ? 1 : 0, fin: i === n - 1, binaryPayload: Buffer.from(part) })
  conn.sendFrame(f)
}

export const clients = { ws, faye: fayeClient, websocket, undici: whatwg(undici) }
