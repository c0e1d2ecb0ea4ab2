package account

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// minSecret is the length of the hash (RFC 7518 section 3.2).
const minSecret = 32

// Token is what a JSON Web Token says.
type Token struct {
	// Subject is the bare id of the user, ID the token's own name.
	Subject, ID string
	Expires     time.Time
}

// Tokens makes and reads tokens, signed with HS256.
type Tokens struct {
	secret []byte
	signer jose.Signer
	life   time.Duration
}

// NewTokens returns what makes tokens that live so long.
func NewTokens(secret string, life time.Duration) (*Tokens, error) {
	if len(secret) < minSecret {
		return nil, fmt.Errorf("the secret of the tokens is shorter than %d bytes", minSecret)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret)}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("prepare tokens: %w", err)
	}
	return &Tokens{secret: []byte(secret), signer: signer, life: life}, nil
}

// Issue returns a new token of a user, as text and as what it says.
func (t *Tokens) Issue(subject string) (string, Token, error) {
	now := time.Now().Truncate(time.Second) // what the claims can hold
	token := Token{Subject: subject, ID: rand.Text(), Expires: now.Add(t.life)}
	text, err := jwt.Signed(t.signer).Claims(jwt.Claims{
		Subject: subject, ID: token.ID, IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(token.Expires),
	}).Serialize()
	if err != nil {
		return "", Token{}, fmt.Errorf("sign token: %w", err)
	}
	return text, token, nil
}

// ErrToken says that a token is none of ours, or not any more.
var ErrToken = errors.New("the token is not valid")

// Read verifies a token.
func (t *Tokens) Read(text string) (Token, error) {
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		return Token{}, ErrToken
	}
	var claims jwt.Claims
	if err := parsed.Claims(t.secret, &claims); err != nil {
		return Token{}, ErrToken
	}
	if claims.ValidateWithLeeway(jwt.Expected{Time: time.Now()}, 0) != nil || claims.Expiry == nil || claims.ID == "" || claims.Subject == "" {
		return Token{}, ErrToken
	}
	return Token{Subject: claims.Subject, ID: claims.ID, Expires: claims.Expiry.Time()}, nil
}
