// A real phoenix.js on its long-poll transport: joins, talks, is thrown out,
// and talks again. Each line of its output is one thing that it has seen.
import { createRequire } from "node:module";
import { XHR } from "./xhr.mjs";

const [version, url, token] = process.argv.slice(2);
const say = (event, detail = "") => process.stdout.write(`${event} ${detail}`.trim() + "\n");

if (version === "1.7") Object.assign(globalThis, { self: globalThis, XMLHttpRequest: XHR });

const { Socket, LongPoll } = createRequire(import.meta.url)(`phoenix-${version.replace(".", "")}`);
process.on("uncaughtException", (e) => { say("uncaught", e.message); process.exit(1); });

const socket = new Socket(url, {
  transport: LongPoll, params: { user: "ann", token: "of the user" }, authToken: token,
  reconnectAfterMs: () => 50, rejoinAfterMs: () => 50,
});
socket.onOpen(() => say("open"));
socket.onClose((e) => say("close", e.code));
socket.connect();

const room = socket.channel("room:a", { with: "params" });
room.on("told", ({ n }) => say("told", n));
let joins = 0;
room.join().receive("ok", () => { say("joined"); joins++; talk(); });

const push = (event, payload) => new Promise((done, fail) =>
  room.push(event, payload).receive("ok", done).receive("error", fail).receive("timeout", () => fail(new Error("timeout"))));

async function talk() {
  // A burst goes in one body, of JSON and base64 lines.
  const sums = await Promise.all([
    ...Array.from({ length: 150 }, (_, n) => push("double", { n })),
    push("size", new Uint8Array([0, 255, 10, 13, 91]).buffer),
  ]);
  say("talked", sums.slice(0, 150).reduce((sum, { n }) => sum + n, 0) + " " + sums[150].size);
  if (joins === 3) {
    socket.disconnect(() => { say("done"); process.exit(0); });
  }
}
