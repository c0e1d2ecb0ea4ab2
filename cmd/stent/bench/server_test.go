package bench

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// The lean echo answers a client that is not ours, too.
func TestServer(t *testing.T) {
	url := echoing(t)
	c, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	for _, size := range []int{0, 1, 125, 126, minRead - 8, minRead, 65535, 65536, 1 << 20} {
		sent := bytes.Repeat([]byte("x"), size)
		written := make(chan error, 1)
		go func() { written <- c.Write(t.Context(), websocket.MessageText, sent) }()
		kind, got, err := c.Read(t.Context())
		if err != nil || kind != websocket.MessageText || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes: got %d, %v, %v", size, len(got), kind, err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
	w, err := c.Writer(t.Context(), websocket.MessageBinary)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"in ", "three ", "frames"} {
		w.Write([]byte(part))
	}
	w.Close()
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != "in three frames" {
		t.Fatalf("got %q, %v", got, err)
	}
	reading := c.CloseRead(t.Context())
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
	<-reading.Done()
}

func TestServerTakesOnlyWebSockets(t *testing.T) {
	resp, err := http.Get("http" + strings.TrimPrefix(echoing(t), "ws"))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("got %s, want 426", resp.Status)
	}
}
