package plug

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stentproxy/stent/config"
	xrate "golang.org/x/time/rate"
)

// rate bounds the requests of a second that share a key: 429 above it, with
// the time after which another would be let through. All requests count, so
// that a password can't be guessed faster without a handshake than with one.
func rate(c *config.RatePlug, env Env) (Compiled, error) {
	if c.PerSecond <= 0 {
		return Compiled{}, config.Within("per_second", fmt.Errorf("%v would let nothing pass", c.PerSecond))
	}
	key, err := limitKey(c.By, env)
	if err != nil {
		return Compiled{}, config.Within("by", err)
	}
	burst := c.Burst
	if burst <= 0 {
		burst = max(1, int(math.Ceil(min(c.PerSecond, math.MaxInt32))))
	}
	rates := env.Rates
	if rates == nil {
		rates = new(Rates)
	}
	name := countName{pipeline: env.Pipeline, by: c.By, nth: env.Nth}
	kind, _, _ := strings.Cut(c.By, ":")
	limited := "rate_by_" + kind
	detail := "too many requests for this " + strings.TrimPrefix(c.By, "header:")
	return Compiled{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := name
			name.key = key(r)
			if wait := rates.take(name, xrate.Limit(c.PerSecond), burst, time.Now()); wait > 0 {
				From(r).Limit = limited
				seconds := strconv.Itoa(int(math.Ceil(wait.Seconds())))
				(&Problem{Status: http.StatusTooManyRequests, Detail: detail}).Set("Retry-After", seconds).ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}
