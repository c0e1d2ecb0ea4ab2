package config

import (
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
)

// Secret is text that is never printed. It is written as a string or as
// {file: path}; the file is read with the configuration, and line ends after
// the text don't count.
type Secret struct {
	value string
	file  string
}

// NewSecret returns a Secret for a configuration built in code.
func NewSecret(value string) Secret { return Secret{value: value} }

// Value returns the text itself.
func (s Secret) Value() string { return s.value }

// redacted stands for a secret wherever one would be printed.
const redacted = "[redacted]"

// String returns "[redacted]", or nothing where there is no secret.
func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return redacted
}

// GoString is String: %#v does not print the secret either.
func (s Secret) GoString() string { return s.String() }

// Format prints String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String; JSON uses it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML is String.
func (s Secret) MarshalYAML() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// secretFile is the second form of a Secret.
type secretFile struct {
	// File holds the secret.
	File string `yaml:"file" path:"true" required:"true"`
}

// maxSecret bounds the file of a secret, in bytes.
const maxSecret = 64 << 10

func (s *Secret) decode(d *decoder, n *node, path string) {
	switch n.kind {
	case kindString:
		s.value = n.text
	case kindMap:
		var from secretFile
		d.structure(n, reflect.ValueOf(&from).Elem(), path)
		s.file = from.File
		s.readFile(d, n, path)
	default:
		// Not mismatch, which would print the text.
		d.fail(n, path, "want a string or {file: path}, got %s; put it in quotes", n.kind)
	}
}

func (s *Secret) readFile(d *decoder, n *node, path string) {
	if d.failed.touch(path) {
		return
	}
	if s.file == "" {
		d.fail(n, path, "want a string or {file: path}")
		return
	}
	info, err := os.Stat(s.file)
	if err != nil {
		d.fail(n, path, "read secret: %s", err)
		return
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecret {
		d.fail(n, path, "read secret: %s is no regular file of at most %d bytes", s.file, maxSecret)
		return
	}
	data, err := os.ReadFile(s.file)
	if err != nil {
		d.fail(n, path, "read secret: %s", err)
		return
	}
	s.value = strings.TrimRight(string(data), "\r\n")
	if s.value == "" {
		d.fail(n, path, "the secret's file %s is empty", s.file)
	}
}
