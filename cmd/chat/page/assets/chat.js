"use strict";
// The chat's page. Text from others reaches the document by textContent
// alone, so that it stays text.

const $ = (id) => document.getElementById(id);
const LOBBY = "lobby";

// What is not acknowledged by now shows that the backend is away.
const LATE = 1500;
// An unacknowledged message is sent again after this long, under the id that
// it had: the backend keeps it once.
const PUSH_TIMEOUT = 4000;
const RETRY_AFTER = 1000;

let session = JSON.parse(sessionStorage.getItem("session") || "null"); // {user, token, expire}
let chat = null; // what runs while somebody is logged in

// ---- HTTP

class Refused extends Error {
  constructor(status, body) {
    super(body.message || body.detail || `the server answered ${status}`);
    this.status = status;
    this.errors = body.errors;
  }
}

async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (session) headers.Authorization = `Bearer ${session.token}`;
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  let answer = {};
  try { answer = JSON.parse(text); } catch { /* no JSON is no answer of the API */ }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

// persist repeats a call until the backend is there again.
async function persist(method, path, body) {
  for (let tries = 0; ; tries++) {
    try {
      return await call(method, path, body);
    } catch (e) {
      if (e instanceof Refused && e.status === 401) leave("Your login has ended. Please log in again.");
      if (tries >= 30 || (e instanceof Refused && e.status < 500)) throw e;
      await new Promise((done) => setTimeout(done, RETRY_AFTER));
    }
  }
}

// ---- the door

function fields(form) { return Object.fromEntries(new FormData(form)); }

function submit(form, send) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button"), error = form.querySelector(".error");
    error.textContent = "";
    button.disabled = true;
    try {
      await send(fields(form));
    } catch (e) {
      error.textContent = e.errors
        ? Object.entries(e.errors).map(([field, all]) => `${field} ${all.join(", ")}`).join("\n")
        : e.message;
    } finally {
      button.disabled = false;
    }
  });
}

function note(text) {
  $("door-note").textContent = text;
  $("door-note").hidden = !text;
}

submit($("signup"), async (user) => {
  await call("POST", "/api/users", { user });
  $("signup").reset();
  $("login").elements.email.value = user.email;
  $("login").elements.password.focus();
  note("You have signed up. Your password is in the mail.");
});

submit($("login"), async (creds) => {
  const { data } = await call("POST", "/api/login", { creds });
  session = data;
  sessionStorage.setItem("session", JSON.stringify(session));
  $("login").reset();
  note("");
  show();
});

$("logout").addEventListener("click", async () => {
  try {
    await call("POST", "/api/logout");
    leave("You have logged out.");
  } catch (e) {
    leave(e.status === 401 ? "You have logged out." : "You have logged out here; the server could not be told.");
  }
});

function leave(why) {
  sessionStorage.removeItem("session");
  session = null;
  if (chat) chat.end();
  chat = null;
  show();
  note(why || "");
}

function show() {
  $("door").hidden = !!session;
  $("chat").hidden = !session;
  if (session && !chat) chat = new Chat(session);
}

// ---- the chat

const isLate = (m) => !m.failed && Date.now() - m.at > LATE;

class Chat {
  constructor({ user, token }) {
    this.user = user;
    this.id = String(user.id);
    this.room = LOBBY;                 // LOBBY, or the other user's id
    this.rooms = new Map();            // room -> {messages: Map(seq -> message), unread, more, mark}
    this.names = new Map();            // user id -> name
    this.conversations = new Map();    // user id -> conversation id
    this.waiting = new Map();          // message id -> message that is not acknowledged
    this.backends = new Set();
    this.opened = 0;
    this.openSince = null;
    this.ended = false;
    $("me").textContent = `${user.name} ${user.subname}`;

    // Networks that let no WebSocket through: ?transport=longpoll
    const longpoll = new URLSearchParams(location.search).get("transport") === "longpoll";
    this.socket = new Phoenix.Socket("/socket", { params: { token }, ...(longpoll && { transport: Phoenix.LongPoll }) });
    this.socket.onOpen(() => {
      this.opened++;
      this.openSince = Date.now();
      this.drawState();
    });
    this.socket.onClose((event) => {
      this.openSince = null;
      this.drawState();
      // A refused handshake looks like any lost connection: ask why.
      if (!this.ended && event && event.code !== 1000) this.check();
    });
    // The proxy repeats these joins to each new backend.
    this.lobby = this.join("room:lobby", ["new_msg"]);
    this.direct = this.join("room:chat", ["receive_msg"]);
    this.presence = new Phoenix.Presence(this.lobby);
    this.presence.onSync(() => this.drawPeople());
    this.socket.connect();
    this.clock = setInterval(() => {
      this.drawState();
      for (const m of this.waiting.values()) {
        if (!isLate(m)) continue;
        const small = document.querySelector(`#messages [data-id="${CSS.escape(m.id)}"] small`);
        if (small) small.textContent = "You · waiting for the backend…";
      }
    }, 500);
    this.resend = setInterval(() => this.sendAgain(), RETRY_AFTER);
    this.loadPeople();
    this.draw();
  }

  end() {
    this.ended = true;
    clearInterval(this.clock);
    clearInterval(this.resend);
    this.socket.disconnect();
  }

  join(topic, events) {
    const channel = this.socket.channel(topic, {});
    for (const event of events) channel.on(event, (m) => this.hear(m, true));
    channel.on("history", ({ messages, server }) => {
      const again = this.backends.size > 0 && !this.backends.has(server);
      this.backends.add(server);
      // Until now nothing was missing: what comes may leave a gap.
      if (again) for (const r of this.rooms.values()) r.mark = Math.max(0, ...r.messages.keys());
      for (const m of messages) this.hear(m, again);
      if (again) this.catchUp().catch((e) => console.warn("catch up:", e.message));
      this.draw();
    });
    channel.join();
    return channel;
  }

  async check() {
    try {
      await call("GET", "/api/users?limit=1");
    } catch (e) {
      if (e.status === 401 && !this.ended) leave("Your login has ended. Please log in again.");
    }
  }

  async loadPeople() {
    let after = 0;
    do {
      const { data, next } = await persist("GET", `/api/users?limit=200${after ? `&after=${after}` : ""}`);
      for (const u of data) this.names.set(String(u.id), `${u.name} ${u.subname}`);
      after = next;
    } while (after && !this.ended);
    this.drawPeople();
  }

  of(room) {
    if (!this.rooms.has(room)) this.rooms.set(room, { messages: new Map(), unread: 0, more: null });
    return this.rooms.get(room);
  }

  // hear takes a message in; one that is known changes nothing.
  hear(m, fresh) {
    const room = !m.to ? LOBBY : m.from === this.id ? m.to : m.from;
    if (m.to) this.conversations.set(room, m.topic.replace("room:", ""));
    const r = this.of(room);
    this.names.set(m.from, m.name);
    this.waiting.delete(m.id);
    if (r.messages.has(m.seq)) return;
    r.messages.set(m.seq, m);
    if (fresh && room !== this.room && m.from !== this.id) r.unread++;
    this.draw();
  }

  // catchUp fetches what was said while the backend was away, and what the
  // history on joining is too short for.
  async catchUp() {
    for (const [room, r] of this.rooms) {
      const path = this.path(room);
      // Below the newest there may be gaps: begin where all was complete.
      let after = r.mark;
      while (path && after && !this.ended) {
        const { data, next } = await persist("GET", `${path}?after=${after}&limit=200`);
        for (const m of data) this.hear(m, true);
        after = next;
      }
    }
  }

  path(room) {
    if (room === LOBBY) return "/api/lobby/messages";
    const id = this.conversations.get(room);
    return id && `/api/conversations/${id}/messages`;
  }

  async open(room) {
    this.room = room;
    this.of(room).unread = 0;
    this.draw();
    $("body").focus();
    try {
      if (room !== LOBBY && !this.conversations.has(room)) {
        const { data } = await persist("POST", "/api/conversations", { conversation: { user_id: Number(room) } });
        this.conversations.set(room, String(data.id));
      }
      if (this.of(room).more === null) await this.earlier(room);
    } catch (e) {
      console.warn("open a room:", e.message);
    }
  }

  async earlier(room) {
    const r = this.of(room), oldest = Math.min(...r.messages.keys());
    const before = Number.isFinite(oldest) ? `&before=${oldest}` : "";
    const { data, next } = await persist("GET", `${this.path(room)}?limit=50${before}`);
    for (const m of data) this.hear(m, false);
    r.more = next !== null;
    this.draw();
  }

  // ---- saying

  say(body) {
    const m = { id: crypto.randomUUID?.() || `${Date.now()}-${Math.random()}`, body, room: this.room, at: Date.now(), under: false, tries: 0 };
    this.waiting.set(m.id, m);
    this.send(m);
    this.draw();
  }

  send(m) {
    m.under = true;
    m.tries++;
    const [channel, event, payload] = m.room === LOBBY
      ? [this.lobby, "new_msg", { id: m.id, body: m.body }]
      : [this.direct, "send_msg", { id: m.id, body: m.body, to: m.room }];
    const again = () => { m.under = false; this.draw(); };
    try {
      channel.push(event, payload, PUSH_TIMEOUT)
        .receive("ok", ({ seq, at, topic }) => this.hear({
          seq, id: m.id, topic, at, body: m.body, from: this.id,
          to: m.room === LOBBY ? undefined : m.room, name: $("me").textContent,
        }, false))
        .receive("timeout", again)
        .receive("error", ({ reason }) => {
          // A backend that does not know of our join: join again.
          if (reason === "unmatched topic") channel.trigger("phx_error");
          if (reason === "unmatched topic" || reason === "internal error") return again();
          m.failed = reason;
          this.draw();
        });
    } catch {
      again();
    }
  }

  sendAgain() {
    for (const m of this.waiting.values()) if (!m.under && !m.failed) this.send(m);
  }

  // ---- drawing

  draw() {
    this.drawMessages();
    this.drawPeople();
    this.drawState();
  }

  drawState() {
    const open = this.socket.isConnected();
    let state = open ? "open" : this.opened ? "closed" : "connecting";
    let text = open ? "Connected" : this.opened ? "Connection lost, trying again…" : "Connecting…";
    const late = [...this.waiting.values()].some((m) => isLate(m));
    if (open && late) {
      state = "waiting";
      text = "Connected, but the backend does not answer yet";
    }
    if ($("state").dataset.state !== state) $("state").dataset.state = state;
    if ($("state-text").textContent !== text) $("state-text").textContent = text; // announced only when it changes
    $("opened").textContent = this.opened;
    $("backends").textContent = this.backends.size;
    $("waiting").textContent = this.waiting.size;
    const s = this.openSince === null ? null : Math.floor((Date.now() - this.openSince) / 1000);
    $("since").textContent = s === null ? "–" : `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
  }

  button(room, name, online) {
    const li = document.createElement("li"), b = document.createElement("button");
    const text = document.createElement("span");
    text.textContent = name;
    if (online !== undefined) {
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.setAttribute("role", "img");
      dot.setAttribute("aria-label", online ? "online" : "offline");
      li.classList.toggle("online", online);
      b.append(dot);
    }
    b.append(text);
    const { unread } = this.of(room);
    if (unread) {
      const n = document.createElement("span");
      n.className = "unread";
      n.textContent = unread;
      n.setAttribute("aria-label", `${unread} unread`);
      b.append(n);
    }
    b.type = "button";
    b.dataset.room = room;
    if (room === this.room) b.setAttribute("aria-current", "true");
    b.addEventListener("click", () => this.open(room));
    li.append(b);
    return li;
  }

  drawPeople() {
    const focused = document.activeElement?.dataset?.room;
    const online = new Set();
    this.presence.list((id, { metas }) => {
      online.add(id);
      if (metas[0]) this.names.set(id, metas[0].name);
    });
    const others = [...this.names].filter(([id]) => id !== this.id)
      .sort(([a, x], [b, y]) => online.has(b) - online.has(a) || x.localeCompare(y));
    $("rooms").replaceChildren(this.button(LOBBY, "Lobby"));
    $("people").replaceChildren(...others.map(([id, name]) => this.button(id, name, online.has(id))));
    if (focused) document.querySelector(`nav [data-room="${CSS.escape(focused)}"]`)?.focus();
    $("room-name").textContent = this.room === LOBBY ? "Lobby" : this.names.get(this.room) || "…";
  }

  bubble(who, body, when, mine) {
    const li = document.createElement("li"), small = document.createElement("small"), p = document.createElement("p");
    li.classList.toggle("mine", mine);
    small.textContent = `${who} · ${when}`;
    p.textContent = body;
    li.append(small, p);
    return li;
  }

  drawMessages() {
    const scroll = $("scroll"), r = this.of(this.room);
    const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
    const kept = [...r.messages.values()].sort((a, b) => a.seq - b.seq).map((m) => {
      const li = this.bubble(m.name, m.body, new Date(m.at).toLocaleTimeString(), m.from === this.id);
      li.dataset.seq = m.seq;
      return li;
    });
    const waiting = [...this.waiting.values()].filter((m) => m.room === this.room).map((m) => {
      const li = this.bubble("You", m.body, m.failed ? `not sent: ${m.failed}` : isLate(m) ? "waiting for the backend…" : "sending…", true);
      li.dataset.id = m.id;
      li.classList.add("waiting");
      return li;
    });
    $("messages").replaceChildren(...kept, ...waiting);
    $("earlier").hidden = !(r.more ?? kept.length >= 50);
    if (atEnd) scroll.scrollTop = scroll.scrollHeight;
  }
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const body = $("body").value.trim();
  if (body && chat) chat.say(body);
  $("body").value = "";
});

$("earlier").addEventListener("click", () => chat?.earlier(chat.room).catch((e) => console.warn(e.message)));

// ---- the demonstration

$("kill").addEventListener("click", async () => {
  const token = document.cookie.match(/(?:^|; )_csrf_token=([^;]*)/);
  await fetch("/demo/backend/kill", { method: "POST", headers: { "X-CSRF-Token": token ? token[1] : "" } });
});

fetch("/demo/features").then((r) => (r.ok ? r.json() : {})).then(({ kill }) => { $("demo").hidden = !kill; }).catch(() => {});

show();
