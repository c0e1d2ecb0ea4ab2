package plug

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/crypto/bcrypt"

	"github.com/stentproxy/stent/config"
)

// basicAuth asks for a user's name and password (RFC 7617).
func basicAuth(c *config.BasicAuthPlug, _ Env) (Compiled, error) {
	known, err := newPasswords(c.Users)
	if err != nil {
		return Compiled{}, config.Within("users", err)
	}
	pattern, err := parseIDPattern(c.ID, func(name string) error {
		if name != "user" {
			return fmt.Errorf("{%s} is not known here; {user} and {%s} are", name, sessionName)
		}
		return nil
	})
	if err != nil {
		return Compiled{}, config.Within("id", err)
	}
	if err := checkFieldValue("WWW-Authenticate", c.Realm); err != nil || strings.ContainsAny(c.Realm, `"\`) {
		return Compiled{}, config.Within("realm", fmt.Errorf("want text without quotes and backslashes"))
	}
	refusal := (&Problem{Status: http.StatusUnauthorized, Detail: "this resource asks for a user's name and password"}).
		Set("WWW-Authenticate", `Basic realm="`+c.Realm+`", charset="UTF-8"`)
	return Compiled{Reads: []string{"Authorization"}, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, ok := r.BasicAuth()
			if !ok || !known.match(r, user, password) {
				if r.Context().Err() == nil {
					refusal.ServeHTTP(w, r)
				}
				return
			}
			info := From(r)
			if len(pattern) > 0 {
				id, err := pattern.fill(func(name string) string {
					if name == sessionName {
						return info.session.text()
					}
					return user
				})
				if err != nil {
					refusal.ServeHTTP(w, r)
					return
				}
				info.ID = id
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}

// maxRemembered bounds the passwords that are known to be right.
const maxRemembered = 4096

// passwords checks users' passwords. How long that takes says nothing of
// whether there is such a user: a hash is computed for those that are not
// there, too.
type passwords struct {
	hashes map[string][]byte // bcrypt
	plain  map[string][sha256.Size]byte
	nobody []byte // a hash that no password has; nil where no user has one

	// A hash takes tens of milliseconds of a core, which is its purpose, and
	// which a storm of reconnecting clients could not be given. So what was
	// right is remembered, as a digest under a key of this process's.
	key   []byte
	turns chan struct{} // as many hashes at once as may be computed

	mu    sync.Mutex
	right *simplelru.LRU[[sha256.Size]byte, struct{}]
}

func newPasswords(users map[string]config.Secret) (*passwords, error) {
	p := &passwords{
		hashes: make(map[string][]byte), plain: make(map[string][sha256.Size]byte),
		key:   []byte(rand.Text()),
		turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("names nobody, so that nothing could pass")
	}
	highest := 0
	for _, name := range slices.Sorted(maps.Keys(users)) {
		kept := users[name].Value()
		if kept == "" {
			return nil, config.Within(name, fmt.Errorf("has no password"))
		}
		if !strings.HasPrefix(kept, "$2") {
			p.plain[name] = sha256.Sum256([]byte(kept))
			continue
		}
		cost, err := bcrypt.Cost([]byte(kept))
		if err != nil {
			return nil, config.Within(name, fmt.Errorf("is no bcrypt hash")) // err may repeat it
		}
		p.hashes[name] = []byte(kept)
		highest = max(highest, cost)
	}
	if highest > 0 {
		// 53 characters of salt and hash that nothing is known to give.
		p.nobody = fmt.Appendf(nil, "$2a$%02d$%s", highest, strings.Repeat(".", 22)+strings.Repeat("/", 31))
	}
	p.right, _ = simplelru.NewLRU[[sha256.Size]byte, struct{}](maxRemembered, nil) // fails of no size only
	return p, nil
}

// match says whether the user has the password.
func (p *passwords) match(r *http.Request, user, password string) bool {
	if digest, ok := p.plain[user]; ok {
		given := sha256.Sum256([]byte(password))
		right := subtle.ConstantTimeCompare(given[:], digest[:]) == 1
		if !right && p.nobody != nil {
			p.hash(r, p.nobody, password) // as slow as all refusals
		}
		return right
	}
	hash, ok := p.hashes[user]
	if !ok {
		if p.nobody != nil {
			p.hash(r, p.nobody, password)
		}
		return false
	}
	digest := p.digest(user, password)
	if p.remembers(digest) {
		return true
	}
	if !p.hash(r, hash, password) {
		return false
	}
	p.mu.Lock()
	p.right.Add(digest, struct{}{})
	p.mu.Unlock()
	return true
}

// hash compares a password with a hash when its turn comes. A client that
// leaves before has no password.
func (p *passwords) hash(r *http.Request, hash []byte, password string) bool {
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-r.Context().Done():
		return false
	}
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
}

func (p *passwords) remembers(digest [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.right.Get(digest)
	return ok
}

func (p *passwords) digest(user, password string) (digest [sha256.Size]byte) {
	mac := hmac.New(sha256.New, p.key)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(user)))) // where the one ends and the other begins
	mac.Write([]byte(user + password))
	mac.Sum(digest[:0])
	return digest
}
