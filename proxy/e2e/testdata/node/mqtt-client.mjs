// node mqtt-client.mjs BASE: plays what MQTT users do, prints rows.
import mqtt from 'mqtt'
import { crc32, pattern } from './play.mjs'

const base = process.argv[2]
const print = (name, row) => console.log(JSON.stringify({ case: name, row }))
const messages = client => {
  const queue = []
  const waiting = []
  client.on('message', (topic, payload, packet) => {
    const line = `${topic} qos ${packet.qos}${packet.retain ? ' retained' : ''} ${payload.length > 64 ? `${payload.length} ${crc32(payload)}` : payload}`
    waiting.length ? waiting.shift()(line) : queue.push(line)
  })
  return () => queue.length ? Promise.resolve(queue.shift()) : new Promise(resolve => waiting.push(resolve))
}
// Topics are the run's own: the broker remembers what is retained.
const topic = `run-${process.pid}`
const anonymous = line => line.replace(topic, 'run')

const client = await mqtt.connectAsync(base, { reconnectPeriod: 0, clean: true, keepalive: 1 })
const next = messages(client)
await client.subscribeAsync(`${topic}/#`, { qos: 2 })
const row = []
for (const qos of [0, 1, 2]) {
  await client.publishAsync(`${topic}/qos`, `héllo ${qos}`, { qos })
  row.push(anonymous(await next()))
}
print('qos', row)
// mosquitto 2.0.11 falls over messages of 64 KiB by itself.
await client.publishAsync(`${topic}/large`, Buffer.from(pattern(1 << 14)), { qos: 1 })
print('large', [anonymous(await next())])
await client.publishAsync(`${topic}/empty`, '', { qos: 1 })
print('empty', [anonymous(await next())])
const many = []
for (let i = 0; i < 200; i++) client.publish(`${topic}/many`, `${i}`)
for (let i = 0; i < 200; i++) many.push(anonymous(await next()))
print('many', many)

await client.publishAsync(`${topic}/kept`, 'still here', { qos: 1, retain: true })
await next()
const late = await mqtt.connectAsync(base, { reconnectPeriod: 0 })
const lateNext = messages(late)
await late.subscribeAsync(`${topic}/kept`, { qos: 1 })
print('retained', [anonymous(await lateNext())])
await late.endAsync()

// Longer than the broker waits for a client that keeps no keepalive.
await new Promise(resolve => setTimeout(resolve, 2500))
print('kept alive', [String(client.connected)])

const doomed = await mqtt.connectAsync(base, { reconnectPeriod: 0, will: { topic: `${topic}/will`, payload: Buffer.from('gone'), qos: 1 } })
doomed.stream.destroy()
print('will', [anonymous(await next())])
await client.endAsync()
process.exit(0)
