// A GraphQL server that speaks graphql-transport-ws.
import http from 'node:http'
import { buildSchema } from 'graphql'
import { useServer } from 'graphql-ws/use/ws'
import { WebSocketServer } from 'ws'
import { listening } from './backend.mjs'

const schema = buildSchema(`
  type Query { hello(name: String!): String! }
  type Subscription { count(to: Int!): Int! forever: Int! }
`)
const roots = {
  query: { hello: ({ name }) => `hello ${name}` },
  subscription: {
    async *count({ to }) { for (let i = 0; i < to; i++) yield { count: i } },
    async *forever() {
      for (let i = 0; ; i++) {
        yield { forever: i }
        await new Promise(resolve => setTimeout(resolve, 5))
      }
    },
  },
}
const server = http.createServer()
useServer({
  schema, roots,
  onConnect: ({ connectionParams }) => connectionParams?.token !== 'wrong',
}, new WebSocketServer({ server, path: '/graphql' }))
listening(server)
