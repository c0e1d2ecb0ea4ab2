package relay

import (
	"io"
	"math"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// A session ends when its token expires, whatever it is doing.
func TestExpires(t *testing.T) {
	const after = 800 * time.Millisecond // by when an upstream is attached
	leaving := func(t *testing.T, r *rig, c *peer) {
		u := r.attach()
		u.expect(closed(1001, ""))
		u.Close()
	}
	for name, tt := range map[string]struct {
		policy func(*Policy)
		run    func(t *testing.T, r *rig, c *peer)
	}{
		"open":           {nil, leaving},
		"message mode":   {assembling, leaving},
		"continuity":     {holding, leaving},
		"never attached": {holding, func(t *testing.T, r *rig, c *peer) {}},
		"held": {holding, func(t *testing.T, r *rig, c *peer) {
			r.attach().Close()
			r.loss()
			c.say(c.text("held"))
		}},
		"slowed down": {func(p *Policy) { p.Rate = Rate{Messages: 0.001, Burst: time.Second} }, func(t *testing.T, r *rig, c *peer) {
			u := r.attach()
			c.say(c.text("one"), c.text("later"))
			u.expect(text("one"), closed(1001, ""))
			u.Close()
		}},
	} {
		onEachEngine(t, name, func(t *testing.T, s Session, p pair) {
			t.Parallel()
			s.Policy, s.Inspector = newPolicy(tt.policy), inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
			s.Expires = time.Now().Add(after)
			r := newRig(t, s, p, nil)
			tt.run(t, r, r.client)
			r.client.expect(closed(1008, ""))
			r.client.Close()
			if early := time.Until(r.link.Expires); early > 0 {
				t.Errorf("ended %v early", early)
			}
			r.over(Expired)
		})
	}
}

// An upstream that takes nothing, so that the client's reader stands still in
// a write, does not keep the session beyond its token.
func TestExpiresWhileTheUpstreamTakesNothing(t *testing.T) {
	onEachEngine(t, "stuck", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(quickClose)
		s.Expires = time.Now().Add(200 * time.Millisecond)
		r := newRig(t, s, p, nil)
		own, far := tcpPair(t)
		defer far.Close()
		r.next <- own // nobody reads far
		flooded := make(chan struct{})
		go func() {
			defer close(flooded)
			message := r.client.text(string(make([]byte, 60000)))
			for {
				if _, err := r.client.Conn.Write(message); err != nil {
					return
				}
			}
		}()
		r.client.expect(closed(1008, ""))
		r.over(Expired)
		r.client.Close()
		<-flooded
		_, _ = io.Copy(io.Discard, far)
	})
}

// Dates at the ends of what there is are no trouble.
func TestExpiresAtStrangeTimes(t *testing.T) {
	for name, tt := range map[string]struct {
		at   time.Time
		want Cause
	}{
		"long over":        {time.Unix(0, 0), Expired},
		"before all time":  {time.Unix(math.MinInt64>>2, 0), Expired},
		"in the year 9999": {time.Unix(253402300799, 0), Draining},
		"after all time":   {time.Unix(math.MaxInt64>>2, 0), Draining},
	} {
		onEachEngine(t, name, func(t *testing.T, s Session, p pair) {
			s.Policy, s.Expires = newPolicy(nil), tt.at
			r := newRig(t, s, p, nil)
			if tt.want == Draining {
				u := r.attach()
				r.client.say(r.client.text("still there"))
				u.expect(text("still there"))
				r.link.End(End{Cause: Draining})
				u.expect(closed(1001, ""))
				u.Close()
			}
			r.client.Close()
			r.over(tt.want)
		})
	}
}
