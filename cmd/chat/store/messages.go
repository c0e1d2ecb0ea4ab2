package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stentproxy/stent/cmd/chat/room"
)

// Conversation is the room that two users share.
type Conversation struct {
	ID      int64     `json:"id"`
	UserIDs [2]int64  `json:"user_ids"`
	Topic   string    `json:"topic"`
	At      time.Time `json:"created_at"`
}

// ErrSelf says that a conversation needs another.
var ErrSelf = errors.New("a conversation needs another user")

// Converse returns the conversation of two users, made where there was none,
// and whether it was.
func (s *Store) Converse(ctx context.Context, a, b int64) (c Conversation, made bool, err error) {
	if a == b {
		return c, false, ErrSelf
	}
	low, high := min(a, b), max(a, b)
	// Most often it is there, and a look takes no lock.
	if c, err = s.between(ctx, low, high); !errors.Is(err, ErrNotFound) {
		return c, false, err
	}
	result, err := s.db.ExecContext(ctx,
		`INSERT INTO conversations (low_id, high_id, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		low, high, time.Now().UnixMicro())
	if isForeign(err) {
		return c, false, ErrNotFound
	}
	if err != nil {
		return c, false, fmt.Errorf("begin conversation: %w", err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return c, false, fmt.Errorf("begin conversation: %w", err)
	}
	c, err = s.between(ctx, low, high)
	return c, n == 1, err
}

func (s *Store) between(ctx context.Context, low, high int64) (Conversation, error) {
	return scanConversation(s.db.QueryRowContext(ctx,
		`SELECT id, low_id, high_id, created_at FROM conversations WHERE low_id = ? AND high_id = ?`, low, high))
}

// Conversation returns the conversation with this id.
func (s *Store) Conversation(ctx context.Context, id int64) (Conversation, error) {
	return scanConversation(s.db.QueryRowContext(ctx,
		`SELECT id, low_id, high_id, created_at FROM conversations WHERE id = ?`, id))
}

// Conversations returns up to limit conversations of a user, the latest
// first.
func (s *Store) Conversations(ctx context.Context, user int64, limit int) ([]Conversation, error) {
	rows, err := s.db.QueryContext(ctx,
		`SELECT id, low_id, high_id, created_at FROM conversations WHERE low_id = ?1 OR high_id = ?1 ORDER BY id DESC LIMIT ?2`, user, limit)
	if err != nil {
		return nil, fmt.Errorf("list conversations: %w", err)
	}
	defer rows.Close()
	all := []Conversation{}
	for rows.Next() {
		c, err := scanConversation(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

func scanConversation(row interface{ Scan(...any) error }) (Conversation, error) {
	var c Conversation
	var at int64
	if err := found(row.Scan(&c.ID, &c.UserIDs[0], &c.UserIDs[1], &at), "find conversation"); err != nil {
		return Conversation{}, err
	}
	c.Topic, c.At = topicOf(c.ID), toTime(at)
	return c, nil
}

// topicOf is the topic of a conversation's room.
func topicOf(conversation int64) string { return "room:" + strconv.FormatInt(conversation, 10) }

// conversationOf is its reverse; the lobby has none.
func conversationOf(topic string) (id sql.NullInt64, ok bool) {
	if topic == room.Lobby {
		return id, true
	}
	text, isRoom := strings.CutPrefix(topic, "room:")
	n, err := strconv.ParseInt(text, 10, 64)
	return sql.NullInt64{Int64: n, Valid: true}, isRoom && err == nil && topicOf(n) == topic
}

// Member implements room.Store.
func (s *Store) Member(ctx context.Context, user, topic string) (bool, error) {
	id, ok := conversationOf(topic)
	n, err := strconv.ParseInt(user, 10, 64)
	if !ok || err != nil || !id.Valid {
		return false, nil
	}
	c, err := s.Conversation(ctx, id.Int64)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && slices.Contains(c.UserIDs[:], n), err
}

// Direct implements room.Store.
func (s *Store) Direct(ctx context.Context, a, b string) (string, error) {
	first, errA := strconv.ParseInt(a, 10, 64)
	second, errB := strconv.ParseInt(b, 10, 64)
	if errA != nil || errB != nil {
		return "", room.ErrNoUser
	}
	c, _, err := s.Converse(ctx, first, second)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrSelf) {
		return "", room.ErrNoUser
	}
	return c.Topic, err
}

// Save implements room.Store.
func (s *Store) Save(ctx context.Context, m room.Message) (kept room.Message, fresh bool, err error) {
	conversation, ok := conversationOf(m.Topic)
	if !ok {
		return kept, false, fmt.Errorf("keep message: no room %q", m.Topic)
	}
	result, err := s.db.ExecContext(ctx,
		`INSERT INTO messages (conversation_id, sender_id, client_id, body, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		conversation, m.From, m.ID, m.Body, time.Now().UnixMicro())
	if err != nil {
		return kept, false, fmt.Errorf("keep message: %w", err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return kept, false, fmt.Errorf("keep message: %w", err)
	}
	all, err := s.messages(ctx, `m.sender_id = ? AND m.client_id = ?`, `m.id`, 1, m.From, m.ID)
	if err != nil {
		return kept, false, err
	}
	if len(all) != 1 {
		return kept, false, errors.New("keep message: it is not there")
	}
	if all[0].Topic != m.Topic || all[0].Body != m.Body {
		return kept, false, room.ErrConflict
	}
	return all[0], n == 1, nil
}

// Latest implements room.Store.
func (s *Store) Latest(ctx context.Context, topic string, limit int) ([]room.Message, error) {
	return s.Before(ctx, topic, 0, limit)
}

// Before returns up to limit messages of a room below a number, the last
// ones, oldest first; 0 is all.
func (s *Store) Before(ctx context.Context, topic string, seq int64, limit int) ([]room.Message, error) {
	conversation, ok := conversationOf(topic)
	if !ok {
		return nil, ErrNotFound
	}
	all, err := s.messages(ctx, `m.conversation_id IS ? AND (? = 0 OR m.id < ?)`, `m.id DESC`, limit, conversation, seq, seq)
	slices.Reverse(all)
	return all, err
}

// After returns up to limit messages of a room above a number, the first
// ones.
func (s *Store) After(ctx context.Context, topic string, seq int64, limit int) ([]room.Message, error) {
	conversation, ok := conversationOf(topic)
	if !ok {
		return nil, ErrNotFound
	}
	return s.messages(ctx, `m.conversation_id IS ? AND m.id > ?`, `m.id`, limit, conversation, seq)
}

// LatestPrivate implements room.Store.
func (s *Store) LatestPrivate(ctx context.Context, user string, limit int) ([]room.Message, error) {
	all, err := s.messages(ctx, `m.conversation_id IN (SELECT id FROM conversations WHERE low_id = ? OR high_id = ?)`, `m.id DESC`, limit, user, user)
	slices.Reverse(all)
	return all, err
}

// messages returns those for which a condition holds.
func (s *Store) messages(ctx context.Context, where, order string, limit int, args ...any) ([]room.Message, error) {
	rows, err := s.db.QueryContext(ctx,
		`SELECT m.id, m.client_id, m.conversation_id, m.sender_id, u.name || ' ' || u.subname, m.body, m.created_at,
		   CASE m.sender_id WHEN c.low_id THEN c.high_id WHEN c.high_id THEN c.low_id END
		 FROM messages m JOIN users u ON u.id = m.sender_id LEFT JOIN conversations c ON c.id = m.conversation_id
		 WHERE `+where+` ORDER BY `+order+` LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	defer rows.Close()
	all := []room.Message{}
	for rows.Next() {
		var m room.Message
		var conversation, to sql.NullInt64
		var at int64
		if err := rows.Scan(&m.Seq, &m.ID, &conversation, &m.From, &m.Name, &m.Body, &at, &to); err != nil {
			return nil, fmt.Errorf("list messages: %w", err)
		}
		m.Topic, m.At = room.Lobby, toTime(at)
		if conversation.Valid {
			m.Topic = topicOf(conversation.Int64)
			m.To = strconv.FormatInt(to.Int64, 10)
		}
		all = append(all, m)
	}
	return all, rows.Err()
}
