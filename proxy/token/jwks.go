package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
)

// Set is a key set that an issuer publishes. It is fetched by the one
// goroutine that Sets runs for it; requests read what came last.
type Set struct {
	// static
	config config.JWKS
	client *http.Client
	host   string // for the log
	log    *zap.Logger

	keys   atomic.Pointer[[]key] // the last good ones
	wanted chan struct{}         // tokens name keys that are not there
	gone   chan struct{}         // closed when no configuration has the set

	mu sync.Mutex
	// guarded by mu
	begun time.Time     // of the last fetch
	round chan struct{} // closed when the fetch that is next, or under way, is over
	busy  bool          // a fetch is under way, or asked for and not to wait
	tried bool          // the first fetch is over
}

// maxSet bounds a published set, in bytes.
const maxSet = 1 << 20

func newSet(c config.JWKS, ca []byte, log *zap.Logger) (*Set, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return nil, config.Within("url", errors.New("is no URL"))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // the next fetch is minutes away
	if ca != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, config.Within("ca", fmt.Errorf("%s holds no certificate", c.CA))
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &Set{
		config: c, host: u.Host, log: log,
		client: &http.Client{Transport: transport, CheckRedirect: staySecure},
		wanted: make(chan struct{}, 1),
		gone:   make(chan struct{}),
		round:  make(chan struct{}),
	}, nil
}

// staySecure follows a few redirects, but none from https to http.
func staySecure(r *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("too many redirects")
	}
	if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return errors.New("redirected from https to http")
	}
	return nil
}

// find implements keys. Until the first fetch is over it waits for that.
func (s *Set) find(ctx context.Context, id string) ([]key, error) {
	list := s.keys.Load()
	if list == nil {
		s.mu.Lock()
		round, wait := s.round, !s.tried || s.busy
		s.mu.Unlock()
		if wait {
			s.wait(ctx, round)
		}
		if list = s.keys.Load(); list == nil {
			return nil, ErrNoKeys
		}
	}
	if id == "" {
		return *list, nil
	}
	var found []key
	for _, k := range *list {
		if k.id == id || k.id == "" {
			found = append(found, k)
		}
	}
	return found, nil
}

// renew implements keys: it asks for a fetch and waits for it. Whoever makes
// key ids up can't cause more than one in a cooldown, nor keep requests
// waiting: within a cooldown the fetch is only noted for its end.
func (s *Set) renew(ctx context.Context) bool {
	s.mu.Lock()
	fresh := !s.busy && time.Since(s.begun) < s.config.Cooldown.Std()
	if !fresh {
		s.busy = true
	}
	round := s.round
	s.mu.Unlock()
	select {
	case s.wanted <- struct{}{}:
	default:
	}
	return !fresh && s.wait(ctx, round)
}

// wait waits for the end of a fetch.
func (s *Set) wait(ctx context.Context, round <-chan struct{}) bool {
	timer := time.NewTimer(s.config.Timeout.Std())
	defer timer.Stop()
	select {
	case <-round:
		return true
	case <-s.gone:
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// run keeps the set fresh until ctx ends.
func (s *Set) run(ctx context.Context) {
	failures := 0
	var pause time.Duration
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.wanted:
			timer.Stop()
			if !sleep(ctx, time.Until(s.begunAt().Add(s.config.Cooldown.Std()))) {
				return
			}
		}
		if err := s.refresh(ctx); err == nil {
			failures = 0
			// Spread, so that a fleet does not ask at once.
			pause = time.Duration(float64(s.config.Refresh) * (0.9 + 0.2*rand.Float64()))
		} else if ctx.Err() != nil {
			return
		} else {
			s.log.Warn("key set not fetched", zap.String("issuer", s.host), zap.Bool("have_keys", s.keys.Load() != nil), zap.Error(err))
			pause = min(s.config.Refresh.Std(), maxRetry, minRetry<<min(failures, 10))
			failures++
		}
	}
}

// A failed fetch is tried again after minRetry, then twice that, up to
// maxRetry.
const (
	minRetry = 500 * time.Millisecond
	maxRetry = time.Minute
)

func (s *Set) begunAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// sleep reports false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// refresh fetches the set once. The last good keys stay when it fails.
func (s *Set) refresh(ctx context.Context) error {
	select {
	case <-s.wanted: // this is it
	default:
	}
	s.mu.Lock()
	s.begun, s.busy = time.Now(), true
	s.mu.Unlock()
	list, err := s.fetch(ctx)
	if err == nil {
		s.keys.Store(&list)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy, s.tried = false, true
	close(s.round)
	s.round = make(chan struct{})
	return err
}

func (s *Set) fetch(ctx context.Context) (list []key, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("fetch the key set: panic: %v", v)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout.Std())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.config.URL, nil)
	if err != nil {
		return nil, errors.New("fetch the key set: the URL is malformed")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // without the URL, which may hold a key
		}
		return nil, fmt.Errorf("fetch the key set: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch the key set: status %d", resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxSet+1))
	if err != nil {
		return nil, fmt.Errorf("fetch the key set: %w", err)
	}
	if len(text) > maxSet {
		return nil, fmt.Errorf("fetch the key set: it has more than %d bytes", maxSet)
	}
	return parseSet(text)
}

// Sets are the key sets of the configuration in force, each fetched once for
// all plugs that use it. It is a suture service.
type Sets struct {
	log     *zap.Logger
	changed chan struct{}

	mu sync.Mutex
	// guarded by mu
	known map[setName]*Set
	used  []*Set
}

// setName tells apart sets that are fetched differently.
type setName struct {
	config config.JWKS
	ca     string // what is in the file
}

// NewSets returns Sets that fetch nothing until Apply and Serve.
func NewSets(log *zap.Logger) *Sets {
	if log == nil {
		log = zap.NewNop()
	}
	return &Sets{log: log.Named("jwks"), changed: make(chan struct{}, 1), known: make(map[setName]*Set)}
}

// Get returns the set of a configuration: the one that is there already,
// with its keys, where nothing about it has changed.
func (k *Sets) Get(c config.JWKS) (*Set, error) {
	var ca []byte
	if c.CA != "" {
		var err error
		if ca, err = os.ReadFile(c.CA); err != nil {
			return nil, config.Within("ca", fmt.Errorf("read the authorities: %w", err))
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	name := setName{c, string(ca)}
	if set, ok := k.known[name]; ok {
		return set, nil
	}
	set, err := newSet(c, ca, k.log)
	if err == nil {
		k.known[name] = set
	}
	return set, err
}

// Apply says which sets are used from now on. The others are forgotten.
func (k *Sets) Apply(used []*Set) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keep := make(map[*Set]bool, len(used))
	for _, set := range used {
		keep[set] = true
	}
	k.used = nil
	for name, set := range k.known {
		if keep[set] {
			k.used = append(k.used, set)
			continue
		}
		delete(k.known, name)
		close(set.gone)
	}
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// String names the service in the supervision tree.
func (k *Sets) String() string { return "key sets" }

// Serve keeps the sets in use fresh until ctx ends, and joins what it has
// started.
func (k *Sets) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	running := make(map[*Set]context.CancelFunc)
	for {
		k.mu.Lock()
		used := make(map[*Set]bool, len(k.used))
		for _, set := range k.used {
			used[set] = true
		}
		k.mu.Unlock()
		for set, stop := range running {
			if !used[set] {
				stop()
				delete(running, set)
			}
		}
		for set := range used {
			if running[set] != nil {
				continue
			}
			one, stop := context.WithCancel(ctx)
			running[set] = stop
			all.Go(func() {
				defer stop()
				set.run(one)
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.changed:
		}
	}
}
