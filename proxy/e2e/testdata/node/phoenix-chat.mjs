// Two people in the chat with phoenix.js, of the version that is asked for:
//
//   node phoenix-chat.mjs BASE VERSION KILLS websocket|longpoll
//
// A script of joins, messages and presence, then messages while the backend
// is killed KILLS times. What happened is printed as one line of JSON.
import WebSocket from "ws";
import { XHR } from "./xhr.mjs";

const [base, version, kills] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const transport = process.argv[5];
if (transport === "longpoll" && version === "1.7") Object.assign(globalThis, { self: globalThis, XMLHttpRequest: XHR });
const { Socket, Presence, LongPoll } = await import(version === "1.7" ? "phoenix-17" : "phoenix-18");
// The lobby keeps what others have said before.
const tag = (name) => `${name} ${version} ${kills} ${transport}`;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function call(method, path, token, body) {
  // The backend may be away: the proxy then says 502 or 503.
  let response;
  for (let tries = 0; tries < 300 && (!response || response.status >= 502); tries++) {
    if (response) await sleep(100);
    response = await fetch(base + path, {
      method, body: body && JSON.stringify(body),
      headers: token ? { authorization: `Bearer ${token}` } : {},
    });
  }
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text.startsWith("{") ? JSON.parse(text) : text;
}

async function signUp(name) {
  const email = `${name.toLowerCase()}-${version}-${kills}-${transport}@example.com`;
  await call("POST", "/api/users", null, { user: { name, subname: "X", email, job: "dev" } });
  const mails = await call("GET", "/sent_mails");
  const mail = mails.split("<article").find((m) => m.includes(`It goes with ${email}`));
  const password = /your password is\s+(\S+)/.exec(mail)[1];
  const { data } = await call("POST", "/api/login", null, { creds: { email, password } });
  return { id: String(data.user.id), token: data.token };
}

// push resolves with what answered it.
const answer = (push) => new Promise((done) => push
  .receive("ok", (r) => done(["ok", r]))
  .receive("error", (r) => done(["error", r]))
  .receive("timeout", () => done(["timeout"])));

async function until(what, is) {
  const end = Date.now() + 30_000;
  while (!is()) {
    if (Date.now() > end) throw new Error(`it never happened that ${what}`);
    await sleep(10);
  }
}

class Person {
  constructor({ id, token }) {
    Object.assign(this, { id, token, opened: 0, closed: 0, failed: 0, heard: new Map(), order: [], servers: new Set() });
    this.socket = transport === "longpoll" ?
      new Socket(`${base}/socket`, { params: { token }, transport: LongPoll }) :
      new Socket(`${base.replace("http", "ws")}/socket`, { params: { token }, transport: WebSocket, heartbeatIntervalMs: 3000 });
    this.socket.onOpen(() => this.opened++);
    this.socket.onClose(({ code, reason }) => {
      this.closed++;
      console.error(`closed: ${code} ${reason}`);
    });
    this.socket.onError(() => this.failed++);
    this.socket.connect();
    this.lobby = this.socket.channel("room:lobby", {});
    this.direct = this.socket.channel("room:chat", {});
    for (const channel of [this.lobby, this.direct]) {
      channel.on("history", ({ messages, server }) => {
        this.servers.add(server);
        for (const m of messages) this.hear(m);
      });
    }
    this.lobby.on("new_msg", (m) => this.hear(m));
    this.direct.on("receive_msg", (m) => this.hear(m));
    this.presence = new Presence(this.lobby);
  }
  hear(m) {
    if (!m.id.endsWith(tag(""))) return;
    if (!this.heard.has(m.id)) this.order.push(m.body);
    this.heard.set(m.id, m);
  }
  async join() {
    return [(await answer(this.lobby.join()))[0], (await answer(this.direct.join()))[0]];
  }
  // say repeats a message until it is acknowledged.
  async say(id, body) {
    for (let tries = 0; tries < 60; tries++) {
      const [status, reply] = await answer(this.lobby.push("new_msg", { id, body }, 1000));
      if (status === "ok") return reply;
      if (status === "error" && reply.reason === "unmatched topic") this.lobby.trigger("phx_error");
      await sleep(20);
    }
    throw new Error(`${id} was never acknowledged`);
  }
}

const result = { script: [], kept: null };
const [ann, bob] = [new Person(await signUp("Ann")), new Person(await signUp("Bob"))];
result.script.push(await ann.join(), await bob.join());
await until("both see both", () => [ann, bob].every((p) => p.presence.list().length === 2));
await ann.say(tag("hello"), "hello");
result.script.push((await answer(ann.direct.push("send_msg", { id: tag("psst"), to: bob.id, body: "psst" })))[0]);
await until("Bob has heard", () => bob.heard.has(tag("hello")) && bob.heard.has(tag("psst")));
result.script.push(bob.order);
result.script.push(await answer(ann.socket.channel("room:999", {}).join()));
result.script.push(await answer(ann.socket.channel("game:1", {}).join()));
result.script.push(await answer(ann.lobby.push("dance", {})));
result.script.push(await answer(ann.lobby.push("new_msg", { body: "" })));
for (const channel of ann.socket.channels.filter((c) => c.topic === "room:999" || c.topic === "game:1")) channel.leave();

if (kills) {
  const page = await fetch(base);
  const cookie = page.headers.getSetCookie().map((c) => c.split(";")[0]);
  const csrf = cookie.find((c) => c.startsWith("_csrf_token=")).split("=")[1];
  let over = false;
  const said = [];
  const talk = async (who, name) => {
    for (let i = 0; !over; i++) {
      const id = tag(`${name}-${i}`);
      await who.say(id, id);
      said.push(id);
      await sleep(Math.random() * 40);
    }
  };
  const talks = [talk(ann, "ann"), talk(bob, "bob")];
  for (let i = 0; i < kills; i++) {
    await sleep(Math.random() * 200);
    const seen = ann.servers.size;
    const killed = await fetch(`${base}/demo/backend/kill`, { method: "POST", headers: { cookie: cookie.join("; "), "x-csrf-token": csrf } });
    if (killed.status !== 202) throw new Error(`kill: ${killed.status}`);
    await until("the next backend is seen", () => ann.servers.size > seen);
  }
  over = true;
  await Promise.all(talks);
  const kept = new Map();
  for (let after = 1; after;) { // the first is a hello
    const { data, next } = await call("GET", `/api/lobby/messages?limit=200&after=${after}`, ann.token);
    for (const m of data) kept.set(m.id, (kept.get(m.id) || 0) + 1);
    after = next;
  }
  result.kept = {
    acknowledged: said.length,
    lost: said.filter((id) => !kept.has(id)),
    twice: [...kept].filter(([, n]) => n !== 1).map(([id]) => id),
    backends: Math.max(ann.servers.size, bob.servers.size),
  };
}
await until("both are back", () => [ann, bob].every((p) =>
  p.lobby.state === "joined" && p.direct.state === "joined" && p.presence.list().length === 2));
result.people = [ann, bob].map((p) => ({
  opened: p.opened, closed: p.closed, failed: p.failed, joined: [p.lobby.state, p.direct.state], present: p.presence.list().length,
}));
console.log(JSON.stringify(result));
process.exit(0);
