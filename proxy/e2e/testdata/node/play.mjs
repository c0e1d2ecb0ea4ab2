// Plays one case of the matrix on one client library and returns its row:
// what that client saw, in order. Runs in Node and in a browser.

const quiet = 10_000 // ms that any one step may take

export class Refused extends Error {
  constructor(status, headers, body) {
    super(`refused with ${status}`)
    Object.assign(this, { status, headers, body })
  }
}

// Inbox is an unbounded-by-time queue of what a client's callbacks report.
export class Inbox {
  items = []
  waiting = []
  push(item) {
    const waiter = this.waiting.shift()
    waiter ? waiter(item) : this.items.push(item)
  }
  next() {
    if (this.items.length > 0) return Promise.resolve(this.items.shift())
    return new Promise(resolve => this.waiting.push(resolve))
  }
}

export async function play(client, base, c) {
  const lacks = c.needs.filter(need => client.lacks.includes(need))
  if (lacks.length > 0) return { case: c.name, na: lacks.join(', ') }
  const row = []
  try {
    await steps(client, base, c, row)
  } catch (err) {
    row.push(`error ${err.message}`)
  }
  return { case: c.name, row }
}

async function steps(client, base, c, row) {
  let session
  try {
    session = await bounded(client.open(base + c.target, c), 'open')
  } catch (err) {
    if (!(err instanceof Refused)) throw err
    row.push(`refused ${err.status}`)
    for (const name of c.show) row.push(`${name}: ${err.headers[name] ?? ''}`)
    if (c.body) row.push(`body ${err.body}`)
    return
  }
  row.push(`open ${session.subprotocol ?? ''}`.trim())
  for (const name of c.show) row.push(`${name}: ${session.header(name) ?? ''}`)
  for (const step of c.steps) {
    switch (step.op) {
      case 'text': session.text(step.text); break
      case 'binary': session.binary(pattern(step.size)); break
      case 'fragments': session.fragments(step.parts.map(bytes)); break
      case 'ping': session.ping(step.text); break
      case 'recv': row.push(show(await bounded(session.inbox.next(), 'recv'))); break
      case 'close':
        step.code ? session.close(step.code, step.reason) : session.close()
        row.push(show(await bounded(session.inbox.next(), 'close')))
        break
      case 'abort': session.abort(); break
      default: throw new Error(`unknown step ${step.op}`)
    }
  }
}

function bounded(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing within ${quiet} ms: ${what}`)), quiet)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

export function show({ kind, data, code, reason }) {
  switch (kind) {
    case 'text': {
      const raw = new TextEncoder().encode(data)
      return raw.length <= 512 ? `text ${data}` : `text ${raw.length} ${crc32(raw)}`
    }
    case 'binary':
      return data.length <= 64 ? `binary ${hex(data)}` : `binary ${data.length} ${crc32(data)}`
    case 'pong': return `pong ${data}`
    case 'close': return `close ${code} ${reason ?? ''}`.trim()
  }
  throw new Error(`unknown event ${kind}`)
}

export function pattern(size) {
  const data = new Uint8Array(size)
  for (let i = 0; i < size; i++) data[i] = (i * 31 + (i >> 8)) & 255
  return data
}

export const bytes = s => Uint8Array.from(s.match(/../g) ?? [], h => parseInt(h, 16))
export const hex = data => Array.from(data, b => b.toString(16).padStart(2, '0')).join('')

const table = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1
  return n >>> 0
})

export function crc32(data) {
  let crc = ~0
  for (const b of data) crc = table[(crc ^ b) & 255] ^ (crc >>> 8)
  return (~crc >>> 0).toString(16).padStart(8, '0')
}
