// phoenix.js 1.7 knows browsers, and XMLHttpRequest, only.
export class XHR {
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
