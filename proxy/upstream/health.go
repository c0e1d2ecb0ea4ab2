package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
)

// watch checks a target's health until ctx ends: at once, so that a target
// that is down at start is known to be soon, then at every interval, spread
// by a tenth of it either way.
func (t *Target) watch(ctx context.Context, h config.Health) {
	for {
		err := t.probe(ctx, h)
		if ctx.Err() != nil {
			return
		}
		t.judge(h, err)
		if sleep(ctx, jittered(h.Interval.Std())) != nil {
			return
		}
	}
}

// judge takes one check's result. The first decides alone; later ones need
// as many in a row as the config says to change what is known.
func (t *Target) judge(h config.Health, err error) {
	p := t.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if !t.listed || p.policy.health == nil {
		return
	}
	first := !t.checked
	t.checked = true
	if t.down == (err != nil) {
		t.streak = 0
		return
	}
	need := h.Unhealthy
	if t.down {
		need = h.Healthy
	}
	if t.streak++; t.streak < need && !first {
		return
	}
	t.down, t.streak = !t.down, 0
	if t.down {
		p.log.Warn("target down", zap.String("target", t.name), zap.Error(err))
	} else {
		p.log.Info("target up", zap.String("target", t.name))
	}
	p.pools.notify()
}

// probe makes one check. It goes the way that a session's dial goes, though
// it is no dial in the counts.
func (t *Target) probe(ctx context.Context, h config.Health) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout.Std())
	defer cancel()
	l := t.lease()
	nc, err := l.connect(ctx)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	defer nc.Close()
	if h.WebSocket {
		err = l.probeWebSocket(ctx, nc, h.Path)
	} else {
		err = l.probeHTTP(ctx, nc, h.Path)
	}
	if err != nil {
		return fmt.Errorf("health check %s: %w", h.Path, err)
	}
	return nil
}

// lease returns what the target is dialled with, without a place on it.
func (t *Target) lease() lease {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return lease{t, t.pool.policy, t.tls}
}

// probeHTTP asks for path, as it is written: the target's own path is not
// put in front. 2xx and 3xx are healthy.
func (l lease) probeHTTP(ctx context.Context, nc net.Conn, path string) error {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: stent-health\r\nConnection: close\r\n\r\n", path, l.target.addr.host)
	if err != nil {
		return err
	}
	r := newAnswerReader(nc)
	defer r.free()
	resp, err := readAnswer(r.buf)
	if err != nil {
		return err
	}
	// Read what the page says, up to the bound of r, so that its server is
	// not cut short.
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// closeNormal is a masked Close frame with code 1000 (RFC 6455 section
// 5.5.1). Its mask is zero: what it hides is known to everybody.
var closeNormal = []byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}

// probeWebSocket makes an opening handshake, which is healthy when answered
// by 101, and takes leave.
func (l lease) probeWebSocket(ctx context.Context, nc net.Conn, path string) error {
	_, err := l.shake(ctx, nc, &Handshake{
		RequestURI: path,
		Header:     []byte("User-Agent: stent-health\r\n"),
	}, "")
	if refused, ok := errors.AsType[*Refused](err); ok {
		return fmt.Errorf("answered %s", refused.Response.Status)
	}
	if err != nil {
		return err
	}
	// The server closes the TCP connection first (RFC 6455 section 7.1.1), so
	// reading to the end lets it say goodbye too; whatever it says, it was
	// healthy.
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := nc.Write(closeNormal); err == nil {
		_, _ = io.CopyN(io.Discard, nc, maxAnswer)
	}
	return nil
}

// sleep waits for d, or for the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// jittered spreads d by a tenth either way.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
