// A Socket.IO server: echoes, broadcasts, closes.
import http from 'node:http'
import { Server } from 'socket.io'
import { listening } from './backend.mjs'

const server = http.createServer((req, res) => res.end(`page ${req.url}`))
const io = new Server(server, { maxHttpBufferSize: 8 << 20, pingInterval: 300, pingTimeout: 5000 })
io.on('connection', socket => {
  socket.on('echo', (data, ack) => ack(data))
  socket.on('shout', data => io.emit('heard', data))
  socket.on('transport', ack => ack(socket.conn.transport.name, socket.conn.id))
  socket.on('query', ack => ack(socket.handshake.query.a, socket.handshake.headers.cookie, socket.handshake.auth))
  socket.on('leave', () => socket.disconnect(true))
})
listening(server)
