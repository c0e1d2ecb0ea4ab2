package proxy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
)

// The modes of a route, fixed when it is compiled.
const (
	modeRelay   = "relay"   // frames are forwarded as they come
	modeMessage = "message" // whole messages pass through handlers
)

// Snapshot is a compiled configuration. It does not change.
type Snapshot struct {
	Config *config.Config
	table  *Table
	pools  *upstream.Plan
	routes []*route // as table.Endpoints
}

// route is what a session needs to know of its route.
type route struct {
	endpoint   *Endpoint
	upstream   string
	alone      bool // no upstream: the handlers are the application
	mode       string
	policy     *relay.Policy
	continuity *config.Continuity
	extensions extensionRule
	hostTarget bool
	handlers   []routeHandler
	logLevel   zapcore.Level
	quiet      bool
	count      *routeCount
	channels   *channelCount
	generation uint64 // the number of its Snapshot, once that is in force
}

// routeHandler is one of a route's handlers.
type routeHandler struct {
	name  string
	make  func() Handler
	count *handlerCount
}

// Compile turns a configuration into a Snapshot. It reads files but never
// the network. Errors carry key paths, which cfg.Locate turns into places in
// the file.
func Compile(cfg *config.Config, handlers map[string]NewHandler) (*Snapshot, error) {
	return compile(cfg, handlers, plug.Env{Log: zap.NewNop(), Counts: new(plug.Counts), Rates: new(plug.Rates)}, newMetrics())
}

func compile(cfg *config.Config, handlers map[string]NewHandler, env plug.Env, m *metrics) (*Snapshot, error) {
	var errs []error
	s := &Snapshot{Config: cfg}
	var err error
	if s.table, err = NewTable(cfg, env); err != nil {
		errs = append(errs, err)
	}
	if s.pools, err = upstream.Prepare(cfg.Upstreams); err != nil {
		errs = append(errs, err)
	}
	// A fault in a plug hides none in the handlers behind it.
	for _, f := range cfg.Flatten() {
		rt, err := compileRoute(f, handlers)
		if err != nil {
			errs = append(errs, err)
		}
		s.routes = append(s.routes, rt)
	}
	for _, l := range cfg.Listeners {
		if l.TLS == nil {
			continue
		}
		if _, err := serverTLS(*l.TLS); err != nil {
			errs = append(errs, config.Within(l.KeyPath+".tls", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i, rt := range s.routes {
		rt.bind(s.table.Endpoints[i], m)
	}
	return s, nil
}

// WriteRoutes prints the route table.
func (s *Snapshot) WriteRoutes(w io.Writer) error {
	return WriteRoutes(w, s.table, s.Config.Upstreams)
}

func compileRoute(f config.FlatRoute, handlers map[string]NewHandler) (*route, error) {
	c := &f.Route
	rt := &route{
		upstream: c.Upstream, alone: c.Upstream == config.UpstreamNone,
		mode: modeRelay, continuity: c.Continuity, hostTarget: c.HostHeader == config.HostTarget,
	}
	var errs []error
	if c.Log == "off" {
		rt.quiet = true
	} else if err := rt.logLevel.UnmarshalText([]byte(c.Log)); err != nil {
		errs = append(errs, config.Within(c.KeyPath+".log", err))
	}
	for _, h := range c.Handlers {
		factory, ok := handlers[h.Name]
		if !ok {
			errs = append(errs, config.Within(h.KeyPath, unknownHandler(h.Name, handlers)))
			continue
		}
		make, err := factory(h.Config)
		if err != nil {
			errs = append(errs, config.Within(h.KeyPath, err))
			continue
		}
		rt.handlers = append(rt.handlers, routeHandler{name: h.Name, make: make})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(rt.handlers) > 0 || c.Compression == config.CompressionTerminate || c.Protocol != config.ProtocolRaw {
		rt.mode = modeMessage
	}
	rt.extensions = extensionsOf(rt, c)
	rt.policy = policyOf(rt, c)
	return rt, nil
}

// bind joins the route to its endpoint and its counts; a configuration that
// is refused leaves the counts alone.
func (rt *route) bind(e *Endpoint, m *metrics) {
	rt.endpoint, e.Mode = e, rt.mode
	rt.count = m.route(e.Pattern)
	rt.channels = rt.count.channels
	for i := range rt.handlers {
		rt.handlers[i].count = m.handler(e.Pattern, rt.handlers[i].name)
	}
}

func unknownHandler(name string, handlers map[string]NewHandler) error {
	known := slices.Sorted(maps.Keys(handlers))
	return fmt.Errorf("no handler is called %q; there are: %s", name, strings.Join(known, ", "))
}

func extensionsOf(rt *route, c *config.Route) extensionRule {
	switch {
	case c.Compression == config.CompressionTerminate:
		return extTerminate
	case c.Compression == config.CompressionOff, rt.mode == modeMessage:
		return extOff
	// A dropped message is missing from the window of who inflates the next.
	case rt.continuity != nil, c.Limits.OnLimit == config.OnLimitDrop:
		return extContinuity
	default:
		return extPassthrough
	}
}

func policyOf(rt *route, c *config.Route) *relay.Policy {
	p := &relay.Policy{
		Rules:       &closeTable,
		MessageSize: int64(c.Limits.MessageSize),
		Assemble:    rt.mode == modeMessage,
		Rate: relay.Rate{
			Messages: c.Limits.MessagesPerSecond, Bytes: float64(c.Limits.BytesPerSecond), Burst: c.Limits.Burst.Std(),
		},
		Keepalive: relay.Keepalive{Interval: c.Keepalive.Interval.Std(), Timeout: c.Keepalive.Timeout.Std()},
		Timeouts: relay.Timeouts{
			Idle: c.Timeouts.Idle.Std(), Write: c.Timeouts.Write.Std(),
			Lifetime: c.Timeouts.Lifetime.Std(), Close: c.Timeouts.Close.Std(),
		},
	}
	if p.Assemble && p.MessageSize == 0 {
		p.MessageSize = int64(config.DefaultMessageSize)
	}
	switch c.Limits.OnLimit {
	case config.OnLimitSlow:
		p.Rate.OnLimit = relay.Slow
	case config.OnLimitDrop:
		p.Rate.OnLimit = relay.DropMessage
	case config.OnLimitClose:
		p.Rate.OnLimit = relay.CloseSession
	}
	if k := c.Continuity; k != nil {
		p.Continuity = &relay.Continuity{
			Whole: int64(k.Whole), Buffer: int(k.Buffer), CloseWhenFull: k.OnFull == config.OnFullClose,
			OnClose: k.OnClose, ReplayFirst: k.Replay.First, ReplayBytes: int(k.Replay.Bytes),
		}
	}
	return p
}
