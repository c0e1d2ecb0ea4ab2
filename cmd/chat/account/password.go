// Package account proves who a user is: by a password once, by a token from
// then on.
package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The cost of a hash: OWASP's choice for argon2id, 19 MiB and two passes.
const (
	hashMemory  = 19 << 10 // KiB
	hashPasses  = 2
	hashThreads = 1
	hashLen     = 32
	saltLen     = 16
)

// MaxPassword bounds a password that is looked at, in bytes.
const MaxPassword = 256

// Passwords hashes passwords, a few at a time: each takes its memory and a
// core.
type Passwords struct {
	turns chan struct{}
	// nobody is compared where there is no such user, so that the time does
	// not tell.
	nobody string
}

// NewPasswords returns what hashes up to atOnce passwords at once.
func NewPasswords(atOnce int) *Passwords {
	p := &Passwords{turns: make(chan struct{}, atOnce)}
	p.nobody = encode(rand.Text())
	return p
}

// Generate returns a new password: 26 letters and digits, 130 random bits.
func Generate() string { return strings.ToLower(rand.Text()) }

// Hash returns the hash of a password with a new salt, in the PHC form.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	leave, err := p.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	return encode(password), nil
}

// Matches says whether a password is the one of a hash; "" is the hash of
// nobody, and takes as long.
func (p *Passwords) Matches(ctx context.Context, hash, password string) (bool, error) {
	if len(password) > MaxPassword {
		return false, nil
	}
	leave, err := p.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	somebody := hash != ""
	if !somebody {
		hash = p.nobody
	}
	salt, want, err := decode(hash)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(derive(password, salt), want) == 1 && somebody, nil
}

func (p *Passwords) enter(ctx context.Context) (leave func(), err error) {
	select {
	case p.turns <- struct{}{}:
		return func() { <-p.turns }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to hash a password: %w", ctx.Err())
	}
}

func derive(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, hashPasses, hashMemory, hashThreads, hashLen)
}

// prefix names algorithm and cost; there is one of each, so far.
var prefix = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, hashMemory, hashPasses, hashThreads)

func encode(password string) string {
	salt := make([]byte, saltLen)
	rand.Read(salt) // never fails
	return prefix + base64.RawStdEncoding.EncodeToString(salt) + "$" +
		base64.RawStdEncoding.EncodeToString(derive(password, salt))
}

func decode(hash string) (salt, key []byte, err error) {
	rest, ok := strings.CutPrefix(hash, prefix)
	first, second, found := strings.Cut(rest, "$")
	salt, errSalt := base64.RawStdEncoding.DecodeString(first)
	key, errKey := base64.RawStdEncoding.DecodeString(second)
	if !ok || !found || errSalt != nil || errKey != nil || len(key) != hashLen {
		return nil, nil, errors.New("read a password's hash: it is not one of ours")
	}
	return salt, key, nil
}
