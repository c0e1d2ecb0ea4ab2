// A small Channels server for version 2: anybody joins any room, new_msg is
// acknowledged and remembered, and what a client asks for happens: "crash"
// ends its channel, "kill" loses all sockets and refuses new ones for a while.
import http from 'node:http'
import { WebSocketServer } from 'ws'
import { listening } from './backend.mjs'

const history = []
let away = 0

const server = http.createServer()
const sockets = new WebSocketServer({ noServer: true })
server.on('upgrade', (req, socket, head) => {
  if (Date.now() < away) return socket.end('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n')
  sockets.handleUpgrade(req, socket, head, ws => serve(ws))
})

function serve(ws) {
  const joined = new Map()
  const send = (...message) => ws.send(JSON.stringify(message))
  ws.on('message', data => {
    const [joinRef, ref, topic, event, payload] = JSON.parse(data)
    const reply = (response = {}, status = 'ok') => send(joinRef, ref, topic, 'phx_reply', { status, response })
    if (topic === 'phoenix') return reply()
    if (event === 'phx_join') {
      if (topic === 'room:closed') return reply({ reason: 'unauthorized' }, 'error')
      joined.set(topic, joinRef)
      reply({ joined: topic })
      return send(joinRef, null, topic, 'welcome', {})
    }
    if (!joined.has(topic)) return event === 'phx_leave' ? reply() : reply({ reason: 'unmatched topic' }, 'error')
    if (joined.get(topic) !== joinRef) return // stale
    switch (event) {
      case 'phx_leave':
        joined.delete(topic)
        reply()
        return send(joinRef, joinRef, topic, 'phx_close', {})
      case 'new_msg':
        history.push(payload.n)
        return reply()
      case 'history': return reply({ history })
      case 'crash':
        joined.delete(topic)
        return send(joinRef, joinRef, topic, 'phx_error', { reason: 'channel_crash' })
      case 'kill':
        away = Date.now() + payload.away
        for (const other of sockets.clients) other.terminate()
    }
  })
}
listening(server)
