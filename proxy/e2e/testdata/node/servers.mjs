// One adapter for each server library of the matrix.
import http from 'node:http'
import faye from 'faye-websocket'
import theturtle from 'websocket'
import { WebSocketServer } from 'ws'
import { cookie, listening, protocols, refusal, refuse, serve } from './backend.mjs'

const ignore = () => {}

function ws() {
  const server = http.createServer(refuse)
  const wss = new WebSocketServer({
    noServer: true,
    maxPayload: 64 << 20,
    perMessageDeflate: { threshold: 0 },
    handleProtocols: offered => protocols.find(p => offered.has(p)) ?? false,
  })
  wss.on('headers', headers => headers.push(`Set-Cookie: ${cookie}`, 'X-Server: e2e'))
  server.on('upgrade', (req, socket, head) => {
    socket.on('error', ignore)
    const r = refusal(req.url)
    if (r) return refuseUpgrade(socket, r)
    wss.handleUpgrade(req, socket, head, ws => {
      const session = serve(req, {
        text: data => ws.send(data),
        binary: data => ws.send(data),
        fragments: parts => parts.forEach((p, i) => ws.send(p, { binary: false, fin: i === parts.length - 1 })),
        ping: data => ws.ping(data),
        close: (code, reason) => ws.close(code, reason),
        abort: () => socket.resetAndDestroy(),
      })
      ws.on('error', ignore)
      ws.on('message', (data, binary) => binary ? session.binary(data) : session.text(data.toString()))
      ws.on('pong', data => session.pong(data.toString()))
      ws.on('close', (code, reason) => session.close(code, reason.toString()))
    })
  })
  return server
}

function refuseUpgrade(socket, { status, headers, body }) {
  const all = { ...headers, 'Content-Length': Buffer.byteLength(body), Connection: 'close' }
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`).join('')
  socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\n${head}\r\n${body}`)
}

function fayeServer() {
  const server = http.createServer(refuse)
  server.on('upgrade', (req, socket, head) => {
    socket.on('error', ignore)
    const r = refusal(req.url)
    if (r) return refuseUpgrade(socket, r)
    const ws = new faye(req, socket, head, protocols, { headers: { 'Set-Cookie': cookie, 'X-Server': 'e2e' } })
    const session = serve(req, {
      text: data => ws.send(data),
      binary: data => ws.send(Buffer.from(data)),
      ping: data => ws.ping(data, () => session.pong(data)),
      close: (code, reason) => ws.close(code, reason),
      abort: () => socket.resetAndDestroy(),
    })
    ws.on('message', ({ data }) => typeof data === 'string' ? session.text(data) : session.binary(data))
    ws.on('close', ({ code, reason }) => session.close(code, reason))
  })
  return server
}

function websocket() {
  const server = http.createServer(refuse)
  const wss = new theturtle.server({
    httpServer: server,
    autoAcceptConnections: false,
    keepalive: false,
    maxReceivedFrameSize: 64 << 20,
    maxReceivedMessageSize: 64 << 20,
  })
  wss.on('request', request => {
    const req = request.httpRequest
    request.socket.on('error', ignore)
    const r = refusal(req.url)
    if (r) return request.reject(r.status, r.body, r.headers)
    const wanted = protocols.find(p => request.requestedProtocols.includes(p))
    request.on('requestAccepted', conn => {
      conn.on('error', ignore)
      const session = serve(req, {
        text: data => conn.sendUTF(data),
        binary: data => conn.sendBytes(Buffer.from(data)),
        ping: data => conn.ping(data),
        close: (code, reason) => conn.close(code, reason),
        abort: () => conn.socket.resetAndDestroy(),
      })
      conn.on('message', m => m.type === 'utf8' ? session.text(m.utf8Data) : session.binary(m.binaryData))
      conn.on('pong', data => session.pong(data.toString()))
      conn.on('close', (code, reason) => session.close(code, code === 1005 || code === 1006 ? '' : reason))
    })
    request.accept(wanted, request.origin, [{ name: 'seen', value: '1', path: '/' }])
  })
  return server
}

export const servers = { ws, faye: fayeServer, websocket }

export const start = library => listening(servers[library]())
