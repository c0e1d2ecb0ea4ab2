package plug

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token"
)

// tokenPlug admits requests with a valid JSON Web Token.
type tokenPlug struct {
	verifier *token.Verifier
	revoked  *token.Revocations
	sources  []tokenSource
	id       idPattern
	headers  map[string]string // canonical name to claim
	grace    time.Duration
	leeway   time.Duration
	remove   bool
	log      *zap.Logger
}

// jwt admits requests with a valid JSON Web Token, with 401 otherwise, and
// says who the client is and until when. The session ends by that.
func jwt(c *config.JWTPlug, env Env) (Compiled, error) {
	if env.Sets == nil {
		env.Sets = token.NewSets(env.Log)
	}
	if env.Log == nil {
		env.Log = zap.NewNop()
	}
	p := &tokenPlug{
		revoked: env.Revocations, grace: c.Grace.Std(), leeway: c.Leeway.Std(), remove: c.RemoveToken, log: env.Log,
		headers: make(map[string]string, len(c.Headers)),
	}
	var err error
	var set *token.Set
	if p.verifier, set, err = token.NewVerifier(c, env.Sets); err != nil {
		return Compiled{}, err
	}
	if len(c.From) == 0 {
		return Compiled{}, config.Within("from", errors.New("no place to look for a token"))
	}
	for i, s := range c.From {
		source, err := newTokenSource(s)
		if err != nil {
			return Compiled{}, config.Within(fmt.Sprintf("from[%d]", i), err)
		}
		p.sources = append(p.sources, source)
	}
	if p.id, err = config.ParseIDTemplate(c.ID); err != nil {
		return Compiled{}, config.Within("id", err)
	}
	for name, claim := range c.Headers {
		if err := checkField(name); err != nil {
			return Compiled{}, config.Within("headers."+name, err)
		}
		p.headers[http.CanonicalHeaderKey(name)] = claim
	}
	var reads []string
	for _, s := range p.sources {
		reads = append(reads, s.field())
	}
	return Compiled{Wrap: p.wrap, Sets: slices.Sorted(maps.Keys(p.headers)), Reads: reads, Keys: set}, nil
}

func (p *tokenPlug) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, err := p.admit(r)
		if err != nil {
			p.log.Debug("token refused", zap.String("request_id", From(r).RequestID), zap.Error(err))
			refuseToken(err).ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// errNoToken says that a request has no token where one is looked for.
var errNoToken = errors.New("a token is needed")

// admit notes what the request's token says, and returns the request as it
// goes on. With an error that is as it came.
func (p *tokenPlug) admit(r *http.Request) (*http.Request, error) {
	raw, told, err := p.find(r)
	if err != nil {
		return r, err
	}
	t, err := p.verifier.Verify(r.Context(), raw)
	if err != nil {
		return r, err
	}
	id, err := p.id.fill(func(claim string) string {
		value, _ := token.Scalar(t.Claims[claim])
		return value
	})
	if err != nil {
		return r, &token.Invalid{Reason: "names no owner: " + err.Error()}
	}
	set, err := p.claimHeaders(t.Claims)
	if err != nil {
		return r, err
	}
	if p.revoked.Refuses(id, t.ID) {
		return r, errRevoked
	}
	info := From(r)
	info.admit(id, told, t, p.expiry(t.Expires))
	info.EditRequest(func(h http.Header) {
		for name, value := range set {
			h[name] = []string{value}
		}
	})
	if p.remove {
		r = p.removeTokens(r)
	}
	return r, nil
}

// find returns the token of the first place that has one, and the
// subprotocol that the client is told where no other is chosen.
func (p *tokenPlug) find(r *http.Request) (raw, told string, err error) {
	for _, s := range p.sources {
		found := s.find(r)
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], s.told(r), nil
		}
		// The upstream may read the other one.
		return "", "", &token.Invalid{Reason: "is there more than once"}
	}
	return "", "", errNoToken
}

// removeTokens takes the tokens of all places out of what goes up, verified
// or not.
func (p *tokenPlug) removeTokens(r *http.Request) *http.Request {
	for _, s := range p.sources {
		From(r).EditRequest(s.remove)
		r = s.withoutQuery(r)
	}
	return r
}

// expiry is when a session ends whose token expires at t.
func (p *tokenPlug) expiry(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	// A token that is let in within the leeway has until the end of that.
	return t.Add(max(p.grace, p.leeway))
}

// admit adds what a token says of the client; of several tokens the earliest
// expiry counts.
func (i *Info) admit(id, told string, t *token.Token, expires time.Time) {
	if id != "" {
		i.ID = id
	}
	if i.Claims == nil {
		i.Claims = t.Claims
	} else {
		i.Claims = maps.Clone(i.Claims)
		maps.Copy(i.Claims, t.Claims)
	}
	if t.ID != "" {
		i.TokenIDs = append(i.TokenIDs, t.ID)
	}
	if !expires.IsZero() && (i.Expires.IsZero() || expires.Before(i.Expires)) {
		i.Expires = expires
	}
	if i.Subprotocol == "" {
		i.Subprotocol = told
	}
}

// maxClaimHeader bounds a header made of a claim, in bytes.
const maxClaimHeader = 4 << 10

// claimHeaders are the headers that carry claims up. One whose claim is not
// there is not sent; none ever comes from a client.
func (p *tokenPlug) claimHeaders(claims map[string]any) (map[string]string, error) {
	set := make(map[string]string, len(p.headers))
	for name, claim := range p.headers {
		value, there := claims[claim]
		if !there || value == nil {
			continue
		}
		text, ok := token.Text(value)
		// Blanks at the ends fall away on the wire: " admin" would be admin.
		if !ok || len(text) > maxClaimHeader || checkFieldValue(name, text) != nil || strings.Trim(text, " \t") != text {
			return nil, &token.Invalid{Reason: "has a claim that can't stand in a header"}
		}
		set[name] = text
	}
	return set, nil
}

// errRevoked refuses a token that was good.
var errRevoked = &token.Invalid{Reason: "is revoked"}

// Revoked is the answer to a client whose token is revoked.
func Revoked() *Problem { return refuseToken(errRevoked) }

// refuseToken is the answer to a request that is not let in. By RFC 6750
// section 3.1 one without a token is told no error.
func refuseToken(err error) *Problem {
	if errors.Is(err, token.ErrNoKeys) {
		p := &Problem{Status: http.StatusServiceUnavailable, Detail: "tokens can't be verified at the moment"}
		return p.Set("Retry-After", retryAfter)
	}
	p := &Problem{Status: http.StatusUnauthorized, Detail: err.Error()}
	if bad, ok := errors.AsType[*token.Invalid](err); ok {
		return p.Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="stent", error="invalid_token", error_description="%s"`, bad))
	}
	return p.Set("WWW-Authenticate", `Bearer realm="stent"`)
}
