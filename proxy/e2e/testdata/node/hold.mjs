// node hold.mjs URL: opens a session, says so, and holds it.
import WebSocket from 'ws'

const ws = new WebSocket(process.argv[2])
ws.on('open', () => console.log('{}'))
setInterval(() => {}, 1000)
