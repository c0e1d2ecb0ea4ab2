package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/longpoll"
	"github.com/stentproxy/stent/proxy/plug"
)

// pollCall is a request on the long-poll path of a route that has one.
type pollCall struct {
	token   string
	answer  *longpoll.Answer
	opening bool // it is to become a session
}

type pollKey struct{}

// pollOf returns the pollCall that r is, or nil.
func pollOf(r *http.Request) *pollCall {
	call, _ := r.Context().Value(pollKey{}).(*pollCall)
	return call
}

// poll makes a pollCall of r where it is one, before any plug sees it: errors
// of theirs are then answers that a long-poll client understands.
func (t *Table) poll(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, *pollCall) {
	path, _, _ := rawTarget(r)
	if !longpoll.IsPath(path) || plug.AsksWebSocket(r) {
		return w, r, nil
	}
	as := r
	if r.Method == http.MethodOptions { // for one of these
		as = new(*r)
		as.Method = http.MethodGet
	}
	e, problem := t.Match(as)
	if problem != nil || !e.Route.Longpoll {
		return w, r, nil
	}
	r, token := longpoll.Read(r)
	call := &pollCall{token: token, opening: r.Method == http.MethodGet, answer: &longpoll.Answer{ResponseWriter: w}}
	return call.answer, r.WithContext(context.WithValue(r.Context(), pollKey{}, call)), call
}

// stepsAside says whether the session of a long-poll request would reach a
// path, that of the WebSocket, which belongs to a route with pipelines that
// the long-poll path does not go through, or may be read as such a one.
func (t *Table) stepsAside(e *Endpoint, r *http.Request) bool {
	other, problem := t.Match(longpoll.Handshake(r))
	if problem != nil {
		return problem.Status == http.StatusBadRequest // else it is nobody's
	}
	return other.guards(e)
}

// servePoll serves a request on the endpoint's long-poll path. A session's
// token stands for all that the plugs asked of the request that opened it, as
// a connection does; requests without a living session go through them.
func (e *Endpoint) servePoll(w http.ResponseWriter, r *http.Request, call *pollCall) {
	s := e.polls.Find(call.token, e.Pattern)
	call.opening = s == nil && r.Method == http.MethodGet
	if !call.opening {
		plug.From(r).ApplyResponse(w.Header())
	}
	switch r.Method {
	case http.MethodOptions:
		longpoll.Preflight(w, r)
		return
	case http.MethodGet, http.MethodPost:
	default:
		methodNotAllowed([]string{http.MethodGet, http.MethodOptions, http.MethodPost}).ServeHTTP(w, r)
		return
	}
	switch {
	case s != nil && r.Method == http.MethodGet:
		news, err := s.Poll(r.Context())
		switch {
		case errors.Is(err, longpoll.ErrGone):
			e.openPoll(w, r, call) // it has ended since
		case err == nil:
			longpoll.Tell(w, call.token, news)
		}
	case s != nil:
		postPoll(s, w, r)
	case r.Method == http.MethodPost:
		longpoll.Gone(w)
	default:
		e.openPoll(w, r, call)
	}
}

func (e *Endpoint) openPoll(w http.ResponseWriter, r *http.Request, call *pollCall) {
	call.opening = true
	e.handler.ServeHTTP(w, r)
}

// maxPollBody bounds the body of a POST, as Phoenix does.
const maxPollBody = 8 << 20

// postPoll passes the messages of a POST on.
func postPoll(s *longpoll.Session, w http.ResponseWriter, r *http.Request) {
	var problem *Problem
	err := s.Post(r.Context(), func() (iter.Seq[longpoll.Message], error) {
		body := newPacedBody(w, r, bodyStall)
		body.Reader = r.Body
		b, err := io.ReadAll(http.MaxBytesReader(w, body, maxPollBody))
		if err != nil {
			problem = pollBodyProblem(err, body.stalled())
			return nil, err
		}
		messages, err := longpoll.Messages(r.Header.Get("Content-Type"), b)
		if err != nil {
			problem = &Problem{Status: http.StatusBadRequest, Detail: err.Error()}
		}
		return messages, err
	})
	switch {
	case err == nil:
		longpoll.Took(w)
	case problem != nil:
		problem.ServeHTTP(w, r)
	case errors.Is(err, longpoll.ErrTimeout):
		longpoll.Timeout(w)
	case errors.Is(err, longpoll.ErrGone):
		longpoll.Gone(w)
	default: // nobody is there to be answered
	}
}

func pollBodyProblem(err error, stalled bool) *Problem {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("the body is larger than %d bytes", maxPollBody), Close: true}
	}
	if stalled {
		return requestTimeout()
	}
	return badRequest("the body is cut short")
}

// openPolled makes a session of a long-poll request that has passed the plugs.
// To all else it is a WebSocket whose client is in this process.
func (p *Proxy) openPolled(rt *route, w http.ResponseWriter, r *http.Request) {
	if p.current.Load().table.stepsAside(rt.endpoint, r) {
		badRequest("the socket of this path belongs to another route").ServeHTTP(w, r)
		return
	}
	plug.From(r).EditRequest(longpoll.SameAuth)
	client := p.polls.Client(pollMessageSize(rt))
	defer client.Close()
	s := p.open(rt, client, longpoll.Handshake(r))
	token, header := "", client.Header()
	if s != nil {
		token, header = client.Keep(s.key, rt.endpoint.Pattern)
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	switch {
	case token != "":
		longpoll.Opened(w, token)
	case client.Status != 0:
		w.WriteHeader(client.Status)
	case r.Context().Err() == nil:
		badGateway().ServeHTTP(w, r)
	}
}

// notAround keeps clients from a backend's own long poll where something on the
// route judges messages: as plain requests these would go around it. Where the
// route has long poll, this is for other spellings of its path.
func (p *Proxy) notAround(rt *route, plain http.Handler) http.Handler {
	judge := rt.endpoint.Route.Judge()
	if judge == "" {
		return plain
	}
	report := rate.Sometimes{Interval: time.Minute} // clients come again and again
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isPollPath(r) {
			plain.ServeHTTP(w, r)
			return
		}
		info := plug.From(r)
		report.Do(func() {
			p.log.Warn("long poll not proxied: it would go around what judges messages",
				zap.String("request_id", info.RequestID), zap.String("route", info.Route), zap.String("judge", judge))
		})
		info.Refused = http.StatusForbidden
		(&Problem{Status: http.StatusForbidden}).ServeHTTP(&longpoll.Answer{ResponseWriter: w}, r)
	})
}

// isPollPath says whether a backend may take the path of r for that of its
// long poll, however it is spelled.
func isPollPath(r *http.Request) bool {
	raw, _, _ := rawTarget(r)
	path, _ := decodePath(raw)
	is := func(reading string) bool { return longpoll.IsPath(strings.TrimRight(reading, "/")) }
	return is(path) || slices.ContainsFunc(readings(path), is)
}

// pollMessageSize bounds the messages of a long-poll session also where its
// route has no limit: they are gathered here.
func pollMessageSize(rt *route) int64 {
	if n := rt.policy.MessageSize; n > 0 {
		return n
	}
	return int64(config.DefaultMessageSize)
}
