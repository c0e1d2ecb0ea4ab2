package longpoll

import (
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	table, other := NewTable(), NewTable()
	token := table.token("KEY")
	for _, tt := range []struct {
		name, token string
		ok          bool
	}{
		{"its own", token, true},
		{"of another process", other.token("KEY"), false},
		{"none", "", false},
		{"null", "null", false},
		{"cut", token[:len(token)-1], false},
		{"longer", token + "A", false},
		{"padded", token + "=", false},
		{"without prefix", strings.TrimPrefix(token, tokenPrefix), false},
		{"another key", strings.Replace(token, "S0VZ", "S0Va", 1), false},
		{"no MAC", tokenPrefix + "S0VZ.", false},
		{"much too long", tokenPrefix + strings.Repeat("A", 1<<20), false},
	} {
		key, ok := table.verify(tt.token)
		if ok != tt.ok || ok && key != "KEY" {
			t.Errorf("%s: got %q, %v, want %v", tt.name, key, ok, tt.ok)
		}
	}
}

// No token but those that were given out is taken.
func FuzzToken(f *testing.F) {
	table := NewTable()
	f.Add(table.token("KEY"))
	f.Add(tokenPrefix + "S0VZ.AAAA")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if key, ok := table.verify(token); ok && table.token(key) != token {
			t.Errorf("%q is taken for %q", token, key)
		}
	})
}
