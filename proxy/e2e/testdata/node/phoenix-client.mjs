// node phoenix-client.mjs BASE LIBRARY KILLS AWAY: what an application with
// three channels sees while its server is lost again and again, the last time
// for AWAY milliseconds, as rows.
import WebSocket from 'ws'

const [base, library, ...numbers] = process.argv.slice(2)
const [kills, away] = numbers.map(Number)
const { Socket } = await import(library)
const print = (name, row) => console.log(JSON.stringify({ case: name, row }))
const until = async condition => {
  while (!condition()) await new Promise(resolve => setTimeout(resolve, 5))
}

// What the library has logged is printed if its socket closes, which it must
// not.
const log = []
const socket = new Socket(`${base}/socket`, {
  transport: WebSocket, params: { token: 'x' }, heartbeatIntervalMs: 1000,
  rejoinAfterMs: () => 20, reconnectAfterMs: () => 20,
  logger: (kind, message, data) => log.push(`${kind} ${message} ${JSON.stringify(data)?.slice(0, 80)}`),
})
let closes = 0
let errors = 0
socket.onClose(() => {
  closes++
  console.error(log.slice(-40).join('\n'))
})
socket.connect()

const join = (topic, events = {}) => new Promise(resolve => {
  const channel = socket.channel(topic, { from: library })
  channel.on('welcome', () => events.welcome?.())
  channel.onError(() => events.error?.())
  channel.onClose(() => events.close?.())
  channel.join().receive('ok', () => resolve(channel)).receive('error', e => {
    channel.leave()
    resolve(e.reason)
  })
})
const push = (channel, event, payload = {}, timeout = 400) => new Promise(resolve => channel.push(event, payload, timeout)
  .receive('ok', resolve).receive('error', () => resolve(null)).receive('timeout', () => resolve(null)))

print('refused', [await join('room:closed')])

let left = 0
const leaver = await join('room:left', { close: () => left++ })
await push(leaver, 'new_msg', { n: 0 })
await new Promise(resolve => leaver.leave().receive('ok', resolve))
await until(() => left > 0)
print('left', [leaver.state])

let crashed = 0
const unlucky = await join('room:unlucky', { error: () => crashed++ })
unlucky.push('crash', {})
await until(() => crashed === 1 && unlucky.state === 'joined')
unlucky.leave()
print('crashed', ['joined again'])

const rooms = await Promise.all(['room:a', 'room:b', 'room:c'].map(topic => join(topic, { error: () => errors++ })))
const acked = []
let n = 0
const say = channel => {
  const mine = ++n
  return push(channel, 'new_msg', { n: mine }).then(answer => answer && acked.push(mine))
}
for (let i = 0; i < kills; i++) {
  await Promise.all([0, 1, 2, 3, 4, 5].map(k => say(rooms[k % 3])))
  rooms[0].push('kill', { away: i === kills - 1 ? away : 0 })
  await Promise.all([0, 1, 2, 3, 4, 5].map(k => say(rooms[k % 3])))
  for (const room of rooms) while (!await say(room));
}
await until(() => rooms.every(room => room.state === 'joined'))
const { history } = await push(rooms[0], 'history', {}, 5000)
const times = new Map()
for (const k of history) times.set(k, (times.get(k) ?? 0) + 1)
const wrong = acked.filter(k => times.get(k) !== 1)
const sorted = history.every((k, i) => i === 0 || history[i - 1] < k)
print('killed', [`closes ${closes}`, `errors ${errors}`, `wrong ${wrong}`, `in order ${sorted}`, rooms.map(room => room.state).join(' ')])
process.exit(0)
