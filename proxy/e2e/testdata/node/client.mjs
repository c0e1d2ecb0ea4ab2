// node client.mjs LIBRARY BASE, cases as JSON on stdin: prints one row a line.
import { readFileSync } from 'node:fs'
import { clients } from './clients.mjs'
import { play } from './play.mjs'

const [library, base] = process.argv.slice(2)
for (const c of JSON.parse(readFileSync(0))) {
  console.log(JSON.stringify(await play(clients[library], base, c)))
}
process.exit(0)
