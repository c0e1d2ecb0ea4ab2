package plug

import (
	"net/http"

	"github.com/stentproxy/stent/config"
)

// head turns HEAD into GET for the rest of the way. net/http remembers what
// the client asked for and leaves the body out.
func head(*config.HeadPlug, Env) (Compiled, error) {
	return Compiled{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				get := *r
				get.Method = http.MethodGet
				r = &get
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}
