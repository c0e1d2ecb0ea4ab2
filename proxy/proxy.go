// Package proxy is stent as a library: the front door, the sessions behind
// it and the handlers that look at their messages.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/longpoll"
	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/token"
	"github.com/stentproxy/stent/proxy/upstream"
	"github.com/stentproxy/stent/supervisor"
)

// Options are what a Proxy needs beside its configuration.
type Options struct {
	// Log is where it logs; nil is nowhere.
	Log *zap.Logger
	// Handlers are the message handlers that a configuration may name.
	Handlers map[string]NewHandler
	// Version is the build's, for metrics; empty is that of the main module.
	Version string
}

// Proxy is one running stent.
type Proxy struct {
	// static
	log       *zap.Logger
	options   Options
	tree      *supervisor.Tree
	pools     *upstream.Pools
	registry  *registry
	admission *admission
	shares    *allowances
	metrics   *metrics
	polls     *longpoll.Table
	loops     *relay.Loops // nil where the pump drives everything
	plugs     plug.Env
	abort     chan struct{}
	aborting  sync.Once
	fault     func(*Session, faultPoint) // a test's panics; does nothing otherwise

	current atomic.Pointer[Snapshot]
	phase   atomic.Uint32
	ended   atomic.Bool // endAll has run: a new session ends at once

	mu        sync.Mutex // of reloads and of
	listeners []*Listener
}

// faultPoint names a place where a test lets a worker panic.
type faultPoint uint8

const (
	faultServe    faultPoint = iota // a life begins
	faultDial                       // an upstream is about to be dialled
	faultAttach                     // it has answered
	faultAttached                   // it is attached
	faultRun                        // its frames are about to flow
)

// The phases of a process.
const (
	starting uint32 = iota
	ready
	draining
)

// New compiles cfg and returns a Proxy that serves nothing yet. Errors carry
// positions where cfg has them.
func New(cfg *config.Config, o Options) (*Proxy, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	p := &Proxy{
		log: o.Log, options: o,
		registry: newRegistry(), admission: newAdmission(), shares: newAllowances(), metrics: newMetrics(),
		polls: longpoll.NewTable(),
		pools: upstream.NewPools(upstream.Options{Log: o.Log, Footing: footing}),
		plugs: plug.Env{Log: o.Log, Counts: new(plug.Counts), Rates: new(plug.Rates),
			Sets: token.NewSets(o.Log), Revocations: new(token.Revocations)},
		abort: make(chan struct{}),
		fault: func(*Session, faultPoint) {},
	}
	snapshot, err := compile(cfg, o.Handlers, p.plugs, p.metrics)
	if err != nil {
		return nil, cfg.Locate(err)
	}
	p.tree = supervisor.New(supervisor.Options{Log: o.Log, Partitions: cfg.Supervisor.Partitions, StopTimeout: stopTimeout})
	if os.Getenv(engineEnv) != "pump" {
		p.loops = relay.NewLoops(runtime.GOMAXPROCS(0))
	}
	services := []suture.Service{p.pools, p.plugs.Sets, &mover{p: p}, &collector{p}, &memory{p: p}}
	for _, loop := range p.loops.Services() {
		services = append(services, loop)
	}
	for _, service := range services {
		if _, err := p.tree.AddControl(service); err != nil {
			return nil, err
		}
	}
	p.install(snapshot)
	return p, nil
}

// footing is what TLS to a target stands on: a loop may get it.
func footing(conn net.Conn) net.Conn { return relay.NewFooting(conn, conn) }

// engineEnv is the environment variable that may say "pump", so that two
// goroutines drive each session: to compare. Otherwise loops drive those
// between sockets, where this system has them.
const engineEnv = "STENT_ENGINE"

// stopTimeout is how long the tree's branches have to stop: sessions end
// within their timeouts.close before that.
const stopTimeout = 10 * time.Second

// install puts a snapshot into force.
func (p *Proxy) install(s *Snapshot) {
	generation := p.metrics.snapshots.Add(1)
	for i, e := range s.table.Endpoints {
		s.routes[i].generation = generation
		e.Serve, e.polls = p.endpoint(s.routes[i]), p.polls
	}
	p.pools.Apply(s.pools)
	p.plugs.Sets.Apply(s.table.keys)
	p.admission.set(s.Config.Limits)
	p.current.Store(s)
}

// endpoint serves the requests of one route that have passed its plugs.
func (p *Proxy) endpoint(rt *route) http.Handler {
	plain := p.notAround(rt, newForward(rt.endpoint, p.sendUp(rt), p.log))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pollOf(r) != nil {
			p.openPolled(rt, w, r)
			return
		}
		ws, problem := checkUpgrade(r)
		switch {
		case problem != nil:
			problem.ServeHTTP(w, r)
		case ws:
			p.open(rt, w, r)
		case rt.endpoint.Route.HTTP && !rt.alone:
			plain.ServeHTTP(w, r)
		default:
			checkWebSocketOnly(r).ServeHTTP(w, r)
		}
	})
}

// sendUp connects plain requests with the route's pool.
func (p *Proxy) sendUp(rt *route) sendUp {
	return func(r *http.Request, uri string, at func(base *url.URL) (*http.Request, error)) (*http.Response, error) {
		pool := p.pools.Get(rt.upstream)
		if pool == nil {
			return nil, errNoPool
		}
		info := plug.From(r)
		return pool.RoundTrip(r.Context(), &upstream.HTTPRequest{
			RequestURI: uri, Host: r.Host, Header: r.Header, ID: info.ID, IP: info.ClientIP.String(),
		}, at)
	}
}

// ServeHTTP is the front door: it serves one request by the configuration
// in force. Listeners of the configuration use it; an embedder may mount it.
// The sessions that it opens need Run.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(&Door{Table: func() *Table { return p.current.Load().table }, Log: p.log, Refused: p.metrics.refused, Limited: p.metrics.limit}).ServeHTTP(w, r)
}

// Config returns the configuration in force.
func (p *Proxy) Config() *config.Config { return p.current.Load().Config }

// Snapshot returns the compiled configuration in force.
func (p *Proxy) Snapshot() *Snapshot { return p.current.Load() }

// Tree returns the supervision tree.
func (p *Proxy) Tree() *supervisor.Tree { return p.tree }

// Pools returns the upstream pools.
func (p *Proxy) Pools() *upstream.Pools { return p.pools }

// Ready reports whether new clients are welcome: not while starting or
// draining.
func (p *Proxy) Ready() bool { return p.phase.Load() == ready }

// Sessions returns the living sessions, in no order.
func (p *Proxy) Sessions() []*Session { return p.registry.all() }

// SessionsWithID returns the living sessions of a socket id, in no order.
func (p *Proxy) SessionsWithID(id string) []*Session { return p.registry.withID(id) }

// Session returns a living session by its key, or nil.
func (p *Proxy) Session(key string) *Session { return p.registry.get(key) }

// Addrs returns the addresses of the bound listeners, in the order of the
// configuration.
func (p *Proxy) Addrs() []net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	addrs := make([]net.Addr, len(p.listeners))
	for i, l := range p.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Listen binds the configured addresses. Run does it where it was not done.
func (p *Proxy) Listen(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	cfg := p.Config()
	for _, c := range cfg.Listeners[len(p.listeners):] {
		l, err := Listen(ctx, c, cfg.Limits, p, p.log)
		if err != nil {
			for _, l := range p.listeners {
				l.Close()
			}
			p.listeners = nil
			return cfg.Locate(config.Within(c.KeyPath, err))
		}
		p.listeners = append(p.listeners, l)
	}
	introduce(p.listeners)
	return nil
}

// Reload puts another configuration into force. Running sessions keep the
// policy of their route; what only a restart changes stays as it is, with a
// warning for each such key. After an error everything is as before.
func (p *Proxy) Reload(cfg *config.Config) error {
	return p.ReloadFrom(func() (*config.Config, error) { return cfg, nil })
}

// ReloadFrom is Reload of what source returns. Its error counts as a failed
// reload, too: most bad configurations are found when they are read.
func (p *Proxy) ReloadFrom(source func() (*config.Config, error)) error {
	cfg, err := source()
	if err == nil {
		err = p.reload(cfg)
	}
	if err != nil {
		p.metrics.reloads.WithLabelValues(reloadFailed).Inc()
		return err
	}
	p.metrics.reloads.WithLabelValues(reloadOK).Inc()
	return nil
}

func (p *Proxy) reload(cfg *config.Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	running := p.Config()
	next, kept := untilRestart(cfg, running)
	if next.Admin.Unguarded() {
		return cfg.Locate(config.Within("admin.token",
			fmt.Errorf("required: the admin API listens on %q until a restart", next.Admin.Address)))
	}
	snapshot, err := compile(next, p.options.Handlers, p.plugs, p.metrics)
	if err != nil {
		return cfg.Locate(err)
	}
	var changes []func()
	bound := make(map[string]*Listener)
	for _, l := range p.listeners {
		bound[l.address] = l
	}
	if p.listeners != nil {
		next.Listeners = nil
	}
	for _, c := range cfg.Listeners {
		l, ok := bound[c.Address]
		if !ok {
			p.log.Warn("a listener's address changes only with a restart", zap.String("listener", c.Address))
			continue
		}
		delete(bound, c.Address)
		next.Listeners = append(next.Listeners, c)
		apply, err := l.prepare(c)
		if err != nil {
			return cfg.Locate(config.Within(c.KeyPath, err))
		}
		changes = append(changes, apply)
	}
	for _, c := range running.Listeners {
		if bound[c.Address] != nil {
			p.log.Warn("a listener's address changes only with a restart", zap.String("listener", c.Address))
			next.Listeners = append(next.Listeners, c)
		}
	}
	for _, key := range kept {
		p.log.Warn("a key changes only with a restart", zap.String("key", key))
	}
	for _, apply := range changes {
		apply()
	}
	p.install(snapshot)
	return nil
}

// Run serves until ctx ends, then drains: readiness fails, shutdown.delay
// passes, the listeners refuse, sessions are closed with 1012, spread over
// shutdown.drain. It returns when all that has been started has ended.
func (p *Proxy) Run(ctx context.Context) error {
	if err := p.Listen(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	listeners := p.listeners
	p.mu.Unlock()
	for _, l := range listeners {
		if _, err := p.tree.AddListener(l); err != nil {
			return fmt.Errorf("start %s: %w", l, err)
		}
	}
	treeCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.tree.Serve(treeCtx) }()
	defer p.polls.Close()
	p.phase.CompareAndSwap(starting, ready)
	select {
	case <-ctx.Done():
		p.drain(listeners)
	case <-p.abort:
	case err := <-ended:
		return errors.Join(errors.New("supervision tree ended by itself"), err)
	}
	p.phase.Store(draining)
	p.endAll()
	p.cutAll()
	stop()
	return <-ended
}

// Abort ends a Run without waiting for its drain.
func (p *Proxy) Abort() { p.aborting.Do(func() { close(p.abort) }) }
