package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// browser is a Chromium that is driven by the WebDriver protocol.
type browser struct {
	t    *testing.T
	url  string
	http *http.Client
}

// browse starts a browser for the test, or skips it where there is none.
func browse(t *testing.T) *browser {
	t.Helper()
	driver, err := exec.LookPath("chromedriver")
	if err != nil {
		t.Skip("no chromedriver here")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, driver, "--port="+port)
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &browser{t, "http://127.0.0.1:" + port, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}}
	t.Cleanup(func() {
		stop()
		cmd.Wait()
	})
	b.until("chromedriver is ready", func() bool {
		resp, err := b.http.Get(b.url + "/status")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
	var session struct{ SessionID string }
	b.command("POST", "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"goog:chromeOptions": map[string]any{"args": []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
			"--window-size=1100,720", "--user-data-dir=" + t.TempDir()}},
	}}}, &session)
	b.url += "/session/" + session.SessionID
	t.Cleanup(func() { b.command("DELETE", "", nil, nil) })
	return b
}

// command runs one command of the protocol.
func (b *browser) command(method, path string, body, into any) {
	b.t.Helper()
	var data []byte
	if body != nil {
		data, _ = json.Marshal(body)
	}
	req, err := http.NewRequest(method, b.url+path, bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 {
		b.t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, answer.Value, err)
	}
	if into != nil {
		if err := json.Unmarshal(answer.Value, into); err != nil {
			b.t.Fatalf("%s %s: %s: %v", method, path, answer.Value, err)
		}
	}
}

// do runs a script on the page and returns what it returns, as text.
func (b *browser) do(script string, args ...any) string {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	var got any
	b.command("POST", "/execute/sync", map[string]any{"script": script, "args": args}, &got)
	return fmt.Sprint(got)
}

// until waits until something is so.
func (b *browser) until(what string, is func() bool) {
	b.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-timeout:
			b.t.Fatalf("it never happened that %s", what)
		}
	}
}

// tab opens the page in a new tab and returns its handle.
func (b *browser) tab(url string) string {
	b.t.Helper()
	var opened struct{ Handle string }
	b.command("POST", "/window/new", map[string]string{"type": "tab"}, &opened)
	b.to(opened.Handle)
	b.command("POST", "/url", map[string]string{"url": url}, nil)
	return opened.Handle
}

func (b *browser) to(handle string) {
	b.t.Helper()
	b.command("POST", "/window", map[string]string{"handle": handle}, nil)
}

// fill fills a form of the page and submits it.
func (b *browser) fill(form string, fields map[string]string) {
	b.t.Helper()
	b.do(`const form = document.getElementById(arguments[0]);
		for (const [name, value] of Object.entries(arguments[1])) form.elements[name].value = value;
		form.requestSubmit();`, form, fields)
}

// shoot keeps a picture of the page where CHAT_SCREENSHOTS says.
func (b *browser) shoot(name string) {
	b.t.Helper()
	folder := os.Getenv("CHAT_SCREENSHOTS")
	if folder == "" {
		return
	}
	var picture string
	b.command("GET", "/screenshot", nil, &picture)
	data, err := base64.StdEncoding.DecodeString(picture)
	if err == nil {
		err = os.WriteFile(folder+"/"+name+".png", data, 0o600)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// TestBrowser has two people talk on the page, over each transport, while the
// backend is killed by its button: three times, or STENT_KILLS.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser")
	}
	kills := 3
	if n, err := strconv.Atoi(os.Getenv("STENT_KILLS")); err == nil {
		kills = n
	}
	for _, transport := range []string{"websocket", "longpoll"} {
		t.Run(transport, func(t *testing.T) { playPage(t, transport, kills) })
	}
}

func playPage(t *testing.T, transport string, kills int) {
	b, r := browse(t), start(t)
	tabs := map[string]string{}
	const evil = `<img src=x onerror="window.evil=1">`
	for _, name := range []string{"Ann", "Bob"} {
		tabs[name] = b.tab(r.base + "/?transport=" + transport)
		email := strings.ToLower(name) + "@example.com"
		if name == "Ann" {
			b.fill("signup", map[string]string{"name": "Ann", "email": "ann"})
			b.until("mistakes are shown", func() bool {
				return strings.Contains(b.do(`return document.querySelector("#signup .error").textContent`), "email has invalid format")
			})
			b.shoot("door")
		}
		b.fill("signup", map[string]string{"name": name, "subname": evil, "email": email, "job": "dev"})
		b.until("the sign-up is confirmed", func() bool { return b.do(`return document.getElementById("door-note").hidden`) == "false" })
		b.fill("login", map[string]string{"email": email, "password": r.password(email)})
		b.until(name+" is connected", func() bool {
			return b.do(`return document.getElementById("state").dataset.state`) == "open" &&
				b.do(`return document.getElementById("backends").textContent`) == "1"
		})
	}
	say := func(who, text string) {
		b.to(tabs[who])
		b.do(`document.getElementById("body").value = arguments[0]; document.getElementById("composer").requestSubmit()`, text)
	}
	sees := func(who, text string) {
		b.to(tabs[who])
		b.until(who+" sees "+text, func() bool {
			return b.do(`return [...document.querySelectorAll("#messages li:not(.waiting) p")].filter((p) => p.textContent === arguments[0]).length`, text) == "1"
		})
	}
	say("Ann", "hello "+evil)
	sees("Bob", "hello "+evil)
	b.until("Ann is online for Bob", func() bool { return b.do(`return document.querySelectorAll("#people li.online").length`) == "1" })

	for kill := range kills {
		b.to(tabs["Bob"])
		b.do(`document.getElementById("kill").click()`)
		for i := range 3 {
			say("Ann", fmt.Sprintf("ann %d-%d", kill, i))
			say("Bob", fmt.Sprintf("bob %d-%d", kill, i))
		}
		b.shoot(fmt.Sprintf("killed-%d", kill))
		for i := range 3 {
			for _, who := range []string{"Ann", "Bob"} {
				sees(who, fmt.Sprintf("ann %d-%d", kill, i))
				sees(who, fmt.Sprintf("bob %d-%d", kill, i))
			}
		}
		b.until("the next backend is seen", func() bool {
			return b.do(`return document.getElementById("backends").textContent`) == fmt.Sprint(kill+2)
		})
	}
	b.until("all is kept", func() bool { return b.do(`return document.getElementById("waiting").textContent`) == "0" })
	b.shoot("lobby")

	// Private: Ann opens Bob's room; Bob hears of it while in the lobby.
	b.to(tabs["Ann"])
	b.do(`document.querySelector("#people button").click()`)
	say("Ann", "psst")
	sees("Ann", "psst")
	b.to(tabs["Bob"])
	b.until("Bob has something unread", func() bool { return b.do(`return document.querySelector("#people .unread")?.textContent`) == "1" })
	b.do(`document.querySelector("#people button").click()`)
	sees("Bob", "psst")
	b.shoot("private")
	for who, handle := range tabs {
		b.to(handle)
		if got := b.do(`return document.getElementById("opened").textContent`); got != "1" {
			t.Errorf("%s has opened %s connections, want 1", who, got)
		}
		if got := b.do(`return String(window.evil)`); got != "undefined" {
			t.Errorf("%s ran what somebody wrote", who)
		}
		if got := b.do(`return document.querySelectorAll("#chat img").length`); got != "0" {
			t.Errorf("%s got markup that somebody wrote", who)
		}
	}
	b.to(tabs["Ann"])
	b.do(`document.getElementById("logout").click()`)
	b.until("Ann is out", func() bool { return b.do(`return document.getElementById("chat").hidden`) == "true" })
	b.to(tabs["Bob"])
	b.until("Bob sees that", func() bool { return b.do(`return document.querySelectorAll("#people li.online").length`) == "0" })
}
