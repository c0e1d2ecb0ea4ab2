// Package mail sends what the chat writes to its users.
package mail

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// sendTimeout bounds the talk with an SMTP server.
const sendTimeout = 15 * time.Second

// SMTP sends by a server.
type SMTP struct {
	from   string
	host   string
	config []gomail.Option
}

// NewSMTP returns a sender for a URL, as "smtp://user:password@host:587" or
// "smtps://…:465", and the address that mail comes from. Without
// "?tls=none" smtp: insists on STARTTLS. Errors never name the password.
func NewSMTP(address, from string) (*SMTP, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the URL of the SMTP server can't be read")
	}
	if u.Hostname() == "" {
		return nil, errors.New(`want an SMTP server as "smtp://user:password@host:587"`)
	}
	if err := new(gomail.Msg).From(from); err != nil {
		return nil, fmt.Errorf("the sender's address %q: %w", from, err)
	}
	options := []gomail.Option{gomail.WithTimeout(sendTimeout)}
	port := 587
	switch {
	case u.Scheme == "smtps":
		options, port = append(options, gomail.WithSSL()), 465
	case u.Scheme != "smtp":
		return nil, fmt.Errorf("the scheme %q is neither smtp nor smtps", u.Scheme)
	case u.Query().Get("tls") == "none":
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if text := u.Port(); text != "" {
		if port, err = strconv.Atoi(text); err != nil {
			return nil, fmt.Errorf("the SMTP port %q is no number", text)
		}
	}
	options = append(options, gomail.WithPort(port))
	if password, ok := u.User.Password(); ok {
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover),
			gomail.WithUsername(u.User.Username()), gomail.WithPassword(password))
	}
	return &SMTP{from: from, host: u.Hostname(), config: options}, nil
}

// Send sends one mail.
func (s *SMTP) Send(ctx context.Context, to, subject, body string) error {
	m := gomail.NewMsg()
	if err := errors.Join(m.From(s.from), m.To(to)); err != nil {
		return fmt.Errorf("address mail: %w", err)
	}
	m.Subject(subject)
	m.SetBodyString(gomail.TypeTextPlain, body)
	client, err := gomail.NewClient(s.host, s.config...)
	if err != nil {
		return fmt.Errorf("send mail by %s: %w", s.host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := client.DialAndSendWithContext(ctx, m); err != nil {
		return fmt.Errorf("send mail by %s: %w", s.host, err)
	}
	return nil
}

// CheckAddress says whether an address can get mail: one address alone,
// without a name, on one line.
func CheckAddress(address string) error {
	if strings.ContainsAny(address, "<> \t\r\n,;\"\x00") {
		return errors.New("has invalid format")
	}
	if err := new(gomail.Msg).To(address); err != nil {
		return errors.New("has invalid format")
	}
	return nil
}
