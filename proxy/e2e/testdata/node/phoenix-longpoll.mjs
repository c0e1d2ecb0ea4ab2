// A real phoenix.js on its long-poll transport: joins, talks, is thrown out,
// and talks again. Each line of its output is one thing that it has seen.
import { createRequire } from "node:module";

const [version, url, token] = process.argv.slice(2);
const say = (event, detail = "") => process.stdout.write(`${event} ${detail}`.trim() + "\n");

// phoenix.js 1.7 knows browsers, and XMLHttpRequest, only.
class XHR {
  open(method, url) { Object.assign(this, { method, url, headers: {}, control: new AbortController() }); }
  setRequestHeader(name, value) { this.headers[name] = value; }
  abort() { this.control.abort(); }
  async send(body) {
    const timer = this.timeout && setTimeout(() => { this.control.abort(); this.ontimeout?.(); }, this.timeout);
    try {
      const resp = await fetch(this.url, { method: this.method, headers: this.headers, body: body ?? undefined, signal: this.control.signal });
      this.status = resp.status;
      this.responseText = await resp.text();
    } catch (e) {
      if (e.name !== "AbortError") this.onerror?.(e);
      return;
    } finally {
      clearTimeout(timer);
    }
    this.readyState = 4;
    this.onreadystatechange?.();
  }
}
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
