// What every server of the matrix does, whatever its library: it echoes, obeys
// the commands that begin with "!", and prints what it sees of each session.
import { pattern } from './play.mjs'

export const protocols = ['chat.v2', 'chat.v1']
export const cookie = 'seen=1; Path=/'

const shown = ['cookie', 'authorization', 'x-e2e', 'sec-websocket-protocol']

export function refusal(url) {
  const status = Number(/^\/refuse\/(\d+)/.exec(url)?.[1])
  return status && {
    status,
    headers: {
      'Content-Type': 'application/json',
      'Retry-After': '7',
      'WWW-Authenticate': 'Bearer realm="e2e"',
      'X-Refused': 'yes',
    },
    body: JSON.stringify({ refused: status }),
  }
}

export function refuse(req, res) {
  const r = refusal(req.url) || { status: 404, headers: {}, body: 'not here' }
  res.writeHead(r.status, r.headers)
  res.end(r.body)
}

// serve drives one accepted session; s has text, binary, fragments, ping,
// close and abort. It returns what the library is to call.
export function serve(req, s) {
  const key = new URLSearchParams(req.url.split('?')[1]).get('k')
  const report = event => console.log(JSON.stringify({ key, event }))
  if (req.url.startsWith('/greet')) s.text('welcome')
  return {
    text(data) {
      const [command, ...args] = data.split(' ')
      switch (command) {
        case '!request':
          s.text([`target ${req.url}`, ...shown.map(name => `${name} ${req.headers[name] ?? ''}`.trim())].join('\n'))
          break
        case '!extensions': s.text(`extensions ${req.headers['sec-websocket-extensions'] ?? ''}`.trim()); break
        case '!close':
          report(`closes ${args.join(' ')}`.trim())
          args.length > 0 ? s.close(Number(args[0]), args.slice(1).join(' ')) : s.close()
          break
        case '!ping': s.ping(args[0]); break
        case '!fragments': s.fragments([Buffer.from('6cc3', 'hex'), Buffer.from('a967e2', 'hex'), Buffer.from('988372', 'hex')]); break
        case '!abort': report('aborts'); s.abort(); break
        case '!big': s.binary(pattern(Number(args[0]))); break
        default: s.text(data)
      }
    },
    binary: data => s.binary(data),
    pong(data) {
      report(`pong ${data}`)
      s.text(`pong ${data}`)
    },
    close: (code, reason) => report(`close ${code} ${reason ?? ''}`.trim()),
  }
}

export function listening(server) {
  server.listen(0, '127.0.0.1', 4096, () => console.log(JSON.stringify({ port: server.address().port })))
}
