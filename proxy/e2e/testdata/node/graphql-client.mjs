// node graphql-client.mjs BASE: plays what graphql-ws users do, prints rows.
import { createClient } from 'graphql-ws'
import WebSocket from 'ws'

const url = `${process.argv[2]}/graphql`
const print = (name, row) => console.log(JSON.stringify({ case: name, row }))

function run(client, payload, enough = Infinity) {
  return new Promise(resolve => {
    const row = []
    let stop
    stop = client.subscribe(payload, {
      next: m => {
        row.push(JSON.stringify(m))
        if (row.length === enough) stop()
      },
      error: err => resolve([...row, `error ${JSON.stringify(err.code ? [err.code, err.reason] : err)}`]),
      complete: () => resolve([...row, 'complete']),
    })
  })
}

const client = createClient({ url, webSocketImpl: WebSocket, lazy: false, retryAttempts: 0, connectionParams: { token: 'right' }, keepAlive: 50 })
print('query', await run(client, { query: 'query Q($name: String!) { hello(name: $name) }', variables: { name: 'wörld ☃' } }))
print('subscription', await run(client, { query: 'subscription { count(to: 20) }' }))
print('unsubscribed', await run(client, { query: 'subscription { forever }' }, 3))
print('bad query', await run(client, { query: '{ nothing }' }))
print('ten at once', (await Promise.all(Array.from({ length: 10 }, (_, i) =>
  run(client, { query: `subscription { count(to: ${i}) }` })))).map(row => row.join(' ')))
const closed = new Promise(resolve => client.on('closed', e => resolve([`${e.code} ${e.reason}`])))
const pong = new Promise(resolve => client.on('pong', received => received && resolve(['pong'])))
print('ping', await pong)
await client.dispose()
print('disposed', await closed)

const refused = createClient({ url, webSocketImpl: WebSocket, retryAttempts: 0, connectionParams: { token: 'wrong' } })
print('forbidden', await run(refused, { query: '{ hello(name: "x") }' }))
const other = new WebSocket(url, 'no-such-protocol')
print('wrong subprotocol', await new Promise(resolve => {
  other.on('error', err => resolve([err.message]))
  other.on('close', (code, reason) => resolve([`${code} ${reason}`]))
}))
process.exit(0)
