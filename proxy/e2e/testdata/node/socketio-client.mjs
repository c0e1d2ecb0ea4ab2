// node socketio-client.mjs BASE: plays what Socket.IO users do, prints rows.
import { io } from 'socket.io-client'
import { pattern, crc32 } from './play.mjs'

const base = process.argv[2].replace(/^ws/, 'http')
const settings = {
  'polling, then upgrade': {},
  'polling alone': { transports: ['polling'] },
  'websocket alone': { transports: ['websocket'] },
}

const once = (emitter, event) => new Promise(resolve => emitter.once(event, (...args) => resolve(args)))

async function play(options) {
  const row = []
  const note = line => row.push(line)
  const socket = io(base, {
    ...options, forceNew: true, reconnection: false, query: { a: '1;2&3' }, auth: { token: 't' },
    extraHeaders: { Cookie: 'session=42' },
  })
  note(`begins with ${socket.io.engine.transport.name}`)
  const upgraded = once(socket.io.engine, 'upgrade')
  await once(socket, 'connect')
  const first = socket.io.engine.id
  if (!options.transports) note(`upgraded to ${(await upgraded)[0].name}`)
  const [name, sid] = await new Promise(resolve => socket.emit('transport', (...args) => resolve(args)))
  note(`the server sees ${name}, ${sid === first ? 'the same session' : 'another session'}`)
  note(`query ${JSON.stringify(await new Promise(resolve => socket.emit('query', (...args) => resolve(args))))}`)
  for (const data of ['héllo ☃', { nested: [1, null, 'x'] }, '', 'x'.repeat(100_000)]) {
    const back = JSON.stringify(await socket.emitWithAck('echo', data))
    note(`echo ${back.length} ${crc32(Buffer.from(back))}`)
  }
  for (const size of [0, 3, 1 << 20]) {
    const back = await socket.emitWithAck('echo', Buffer.from(pattern(size)))
    note(`binary echo ${back.length} ${crc32(back)}`)
  }
  const other = io(base, { ...options, forceNew: true, reconnection: false })
  await once(other, 'connect')
  const heard = once(other, 'heard')
  socket.emit('shout', 'to all')
  note(`another heard ${await heard}`)
  // Several pings of the server's go by.
  for (let i = 0; i < 3; i++) await once(socket.io.engine, 'ping')
  note('three pings later still connected: ' + socket.connected)
  other.disconnect()
  const ended = once(socket, 'disconnect')
  socket.emit('leave')
  note(`disconnected: ${(await ended)[0]}`)
  return row
}

for (const [name, options] of Object.entries(settings)) {
  console.log(JSON.stringify({ case: name, row: await play(options) }))
}
const page = await fetch(`${base}/page?x=1`)
console.log(JSON.stringify({ case: 'page', row: [String(page.status), await page.text()] }))
process.exit(0)
