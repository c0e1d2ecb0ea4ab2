// node server.mjs LIBRARY: serves on a free port until its end, printing
// {"port":N} and then one line for each thing that it saw.
import { start } from './servers.mjs'

start(process.argv[2])
