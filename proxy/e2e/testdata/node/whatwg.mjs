// The WebSocket of browsers, and of undici, which follows the same standard.
import { Inbox } from './play.mjs'

export const whatwg = WebSocket => ({
  lacks: ['ping', 'fragments', 'headers', 'response', 'refusal', 'abort', 'codes'],
  open(url, c) {
    return new Promise((resolve, reject) => {
      const inbox = new Inbox()
      const ws = new WebSocket(url, c.protocols)
      ws.binaryType = 'arraybuffer'
      ws.onmessage = ({ data }) => inbox.push(
        typeof data === 'string' ? { kind: 'text', data } : { kind: 'binary', data: new Uint8Array(data) })
      ws.onclose = ({ code, reason }) => inbox.push({ kind: 'close', code, reason })
      ws.onerror = () => reject(new Error('failed'))
      ws.onopen = () => resolve({
        inbox,
        subprotocol: ws.protocol,
        header: () => ws.extensions,
        text: s => ws.send(s),
        binary: data => ws.send(data),
        close: (code, reason) => code ? ws.close(code, reason) : ws.close(),
      })
    })
  },
})
