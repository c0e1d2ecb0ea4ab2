package account

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPasswords(t *testing.T) {
	p := NewPasswords(1)
	password := Generate()
	hash, err := p.Hash(t.Context(), password)
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") || strings.Contains(hash, password) {
		t.Fatalf("got %q, %v", hash, err)
	}
	if again, _ := p.Hash(t.Context(), password); again == hash {
		t.Error("two hashes have one salt")
	}
	for _, tt := range []struct {
		name, hash, password string
		want                 bool
	}{
		{"right", hash, password, true},
		{"wrong", hash, password + "x", false},
		{"empty", hash, "", false},
		{"nobody", "", password, false},
		{"too long", hash, strings.Repeat("x", MaxPassword+1), false},
	} {
		if got, err := p.Matches(t.Context(), tt.hash, tt.password); got != tt.want || err != nil {
			t.Errorf("%s: got %v, %v", tt.name, got, err)
		}
	}
	if _, err := p.Matches(t.Context(), "$2y$10$x", "x"); err == nil {
		t.Error("took a hash of another kind")
	}
}

func TestPasswordsWaitForATurn(t *testing.T) {
	p := NewPasswords(1)
	leave, _ := p.enter(t.Context())
	defer leave()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestTokens(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	tokens, err := NewTokens(secret, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	text, want, err := tokens.Issue("42")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tokens.Read(text); err != nil || got.Subject != "42" || got.ID != want.ID || !got.Expires.Equal(want.Expires) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	other, _ := NewTokens(strings.ToUpper(secret), time.Hour)
	foreign, _, _ := other.Issue("42")
	old, _ := NewTokens(secret, -time.Hour)
	expired, _, _ := old.Issue("42")
	none := "eyJhbGciOiJub25lIn0." + strings.Split(text, ".")[1] + "."
	for name, bad := range map[string]string{"foreign": foreign, "expired": expired, "none": none, "empty": "", "cut": text[:len(text)-2]} {
		if got, err := tokens.Read(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if _, err := NewTokens("short", time.Hour); err == nil || strings.Contains(err.Error(), "\"short\"") {
		t.Errorf("short secret: got %v", err)
	}
}
