package plug

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/field"
)

// forwardAuth asks an HTTP service about each request. What it refuses, the
// client gets as it is; a service that does not answer, or answers nonsense,
// lets nobody in.
func forwardAuth(c *config.ForwardAuthPlug, env Env) (Compiled, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return Compiled{}, config.Within("url", errors.New("want a URL such as http://127.0.0.1:9100/verify"))
	}
	pattern, err := parseIDPattern(c.ID, func(name string) error {
		if err := checkField(name); err != nil {
			return fmt.Errorf("%w; want a header of the answer, or {%s}", err, sessionName)
		}
		return nil
	})
	if err != nil {
		return Compiled{}, config.Within("id", err)
	}
	f := &forward{
		url: u, method: c.Method, timeout: c.Timeout.Std(), id: pattern, log: env.Log,
		// Its answers are few and short; what is idle is let go of soon, since
		// a reload leaves this transport to itself.
		transport: &http.Transport{
			DisableCompression: true, MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: maxAnswerHeader, ForceAttemptHTTP2: true,
		},
		positive: newAnswers(c.Cache.Positive.Std()), negative: newAnswers(c.Cache.Negative.Std()),
	}
	if f.log == nil {
		f.log = zap.NewNop()
	}
	for i, name := range c.Headers {
		if err := checkField(name); err != nil {
			return Compiled{}, config.Within(fmt.Sprintf("headers[%d]", i), err)
		}
		f.copied = append(f.copied, http.CanonicalHeaderKey(name))
	}
	for i, name := range c.Set {
		if err := checkField(name); err != nil {
			return Compiled{}, config.Within(fmt.Sprintf("set[%d]", i), err)
		}
		name = http.CanonicalHeaderKey(name)
		if slices.ContainsFunc(f.copied, func(copied string) bool { return field.Fold(copied) == field.Fold(name) }) {
			return Compiled{}, config.Within(fmt.Sprintf("set[%d]", i), fmt.Errorf("%s can't be copied from clients, too, for it is dropped from them", name))
		}
		f.set = append(f.set, name)
	}
	return Compiled{Wrap: f.wrap, Sets: f.set, Reads: f.credentials()}, nil
}

// credentials are those of the copied fields in which clients say who they
// are. Another one that some plug sets stays empty: the service may take it
// for that plug's.
func (f *forward) credentials() []string {
	var list []string
	for _, name := range f.copied {
		if credential(name) {
			list = append(list, name)
		}
	}
	return list
}

func credential(name string) bool {
	return name == "Authorization" || name == "Cookie" || name == "Origin"
}

// What is taken of an answer, in bytes. A longer one is no answer.
const (
	maxAnswerHeader = 64 << 10
	maxAnswerBody   = 256 << 10
)

// forward is a compiled forward_auth plug.
type forward struct {
	url         *url.URL
	method      string
	copied, set []string
	id          idPattern
	timeout     time.Duration
	transport   http.RoundTripper
	log         *zap.Logger

	positive, negative *answers
}

// verdict is what the service answered.
type verdict struct {
	status int
	header http.Header
	body   []byte // of a refusal
}

func (v *verdict) admits() bool { return v.status >= 200 && v.status < 300 }

func (f *forward) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := f.ask(r)
		var id string
		if err == nil && v.admits() {
			id, err = f.identify(r, v)
		}
		switch {
		case err == nil && !v.admits():
			v.refuse(w, r)
			return
		case err != nil && r.Context().Err() != nil:
			return // nobody is there to be answered
		case err != nil:
			f.log.Warn("authorization service gave no answer",
				zap.String("request_id", From(r).RequestID), zap.String("service", f.url.Host), zap.Error(err))
			noVerdict(err).ServeHTTP(w, r)
			return
		}
		info := From(r)
		if len(f.id) > 0 {
			info.ID = id
		}
		info.EditRequest(func(h http.Header) {
			for _, name := range f.set {
				delete(h, name)
				if values := v.header[name]; len(values) > 0 {
					h[name] = slices.Clone(values)
				}
			}
		})
		next.ServeHTTP(w, r)
	})
}

// noVerdict is the answer where the service gave none.
func noVerdict(err error) *Problem {
	if errors.Is(err, context.DeadlineExceeded) {
		return &Problem{Status: http.StatusGatewayTimeout, Detail: "the authorization service did not answer in time"}
	}
	return &Problem{Status: http.StatusBadGateway, Detail: "the authorization service gave no usable answer"}
}

// identify makes the socket id of an answer.
func (f *forward) identify(r *http.Request, v *verdict) (string, error) {
	id, err := f.id.fill(func(name string) string {
		if name == sessionName {
			return From(r).session.text()
		}
		return v.header.Get(name)
	})
	if err != nil {
		return "", fmt.Errorf("make the socket id: %w", err)
	}
	return id, nil
}

// ask returns the service's verdict on r, which it may have given before.
func (f *forward) ask(r *http.Request) (*verdict, error) {
	header := f.question(r)
	var key answerKey
	if f.positive != nil || f.negative != nil {
		key = keyOf(f.copied, header)
		for _, cache := range []*answers{f.positive, f.negative} {
			if v := cache.get(key, time.Now()); v != nil {
				return v, nil
			}
		}
	}
	if id := From(r).RequestID; id != "" {
		header["X-Request-Id"] = []string{id}
	}
	ctx, cancel := context.WithTimeout(r.Context(), f.timeout)
	defer cancel()
	v, err := f.send(ctx, header)
	if err != nil {
		return nil, err
	}
	switch {
	case v.admits():
		f.positive.put(key, v, time.Now())
	case v.status >= 400 && v.status < 500:
		f.negative.put(key, v, time.Now())
	}
	return v, nil
}

// asked are the fields of a question that say what it is about.
var asked = []string{"X-Forwarded-Method", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Uri", "X-Forwarded-For"}

// question is the header of the question: what the client asks for, in the
// fields that other proxies use for it, and what is copied of its own.
func (f *forward) question(r *http.Request) http.Header {
	info := From(r)
	h := make(http.Header, len(asked)+len(f.copied)+2)
	for _, name := range f.copied {
		if info.withholds(name) && !credential(name) {
			continue
		}
		if values := r.Header[name]; len(values) > 0 {
			h[name] = values
		}
	}
	h["User-Agent"] = nil // not Go's; the client's where it is copied
	if values := r.Header["User-Agent"]; slices.Contains(f.copied, "User-Agent") && len(values) > 0 {
		h["User-Agent"] = values
	}
	h["X-Forwarded-Method"] = []string{r.Method}
	h["X-Forwarded-Proto"] = []string{info.Scheme}
	h["X-Forwarded-Host"] = []string{info.Host}
	h["X-Forwarded-Uri"] = []string{r.RequestURI} // as the client sent it
	if !strings.HasPrefix(r.RequestURI, "/") {
		h["X-Forwarded-Uri"] = []string{r.URL.RequestURI()}
	}
	delete(h, "X-Forwarded-For")
	if info.ClientIP.IsValid() {
		h["X-Forwarded-For"] = []string{info.ClientIP.String()}
	}
	return h
}

// send asks the service. Redirects are not followed: they are its answer.
func (f *forward) send(ctx context.Context, header http.Header) (*verdict, error) {
	req, err := http.NewRequestWithContext(ctx, f.method, f.url.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	req.Header = header
	resp, err := f.transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	defer resp.Body.Close()
	v := &verdict{status: resp.StatusCode, header: resp.Header}
	switch {
	case v.status < 200 || v.status > 599:
		return nil, fmt.Errorf("ask: status %d is no answer", v.status)
	case v.admits():
		if resp.ContentLength >= 0 && resp.ContentLength <= 4<<10 {
			_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
		}
		return v, nil
	}
	if v.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBody+1)); err != nil {
		return nil, fmt.Errorf("read the refusal: %w", err)
	}
	if len(v.body) > maxAnswerBody {
		return nil, fmt.Errorf("read the refusal: its body is longer than %d bytes", maxAnswerBody)
	}
	DropHopByHop(v.header)
	return v, nil
}

// refuse gives the client the service's answer.
func (v *verdict) refuse(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	last := h.Get("Connection") == "close"
	clear(h)
	for name, values := range v.header {
		h[name] = slices.Clone(values)
	}
	From(r).ApplyResponse(h)
	if last {
		h.Set("Connection", "close")
	}
	if v.status == http.StatusNoContent || v.status == http.StatusNotModified {
		w.WriteHeader(v.status)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(v.body)))
	w.WriteHeader(v.status)
	if r.Method != http.MethodHead {
		// A client that went away does not read its answer.
		_, _ = w.Write(v.body)
	}
}

// keyOf is a digest of all that a question says: only the same question has
// the same answer.
func keyOf(copied []string, h http.Header) answerKey {
	sum := sha256.New()
	add := func(s string) {
		sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		sum.Write([]byte(s))
	}
	for _, names := range [][]string{copied, asked} {
		for _, name := range names {
			add(name)
			sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(h[name]))))
			for _, value := range h[name] {
				add(value)
			}
		}
	}
	return answerKey(sum.Sum(nil))
}
