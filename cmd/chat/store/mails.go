package store

import (
	"context"
	"fmt"
	"time"
)

// maxMails bounds the development mailbox; the oldest are dropped.
const maxMails = 100

// Mail is one in the development mailbox.
type Mail struct {
	To, Subject, Body string
	At                time.Time
}

// AddMail puts a mail into the mailbox.
func (s *Store) AddMail(ctx context.Context, m Mail) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO sent_mails (to_addr, subject, body, sent_at) VALUES (?, ?, ?, ?)`,
		m.To, m.Subject, m.Body, time.Now().UnixMicro())
	if err == nil {
		_, err = s.db.ExecContext(ctx, `DELETE FROM sent_mails WHERE id <= (SELECT max(id) FROM sent_mails) - ?`, maxMails)
	}
	if err != nil {
		return fmt.Errorf("put mail into the mailbox: %w", err)
	}
	return nil
}

// Mails returns the mailbox, the latest first.
func (s *Store) Mails(ctx context.Context) ([]Mail, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT to_addr, subject, body, sent_at FROM sent_mails ORDER BY id DESC LIMIT ?`, maxMails)
	if err != nil {
		return nil, fmt.Errorf("read the mailbox: %w", err)
	}
	defer rows.Close()
	var all []Mail
	for rows.Next() {
		var m Mail
		var at int64
		if err := rows.Scan(&m.To, &m.Subject, &m.Body, &at); err != nil {
			return nil, fmt.Errorf("read the mailbox: %w", err)
		}
		m.At = toTime(at)
		all = append(all, m)
	}
	return all, rows.Err()
}
