package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// User is one who has signed up.
type User struct {
	ID      int64  `json:"id"`
	Name    string `json:"name"`
	Subname string `json:"subname"`
	Email   string `json:"email"`
	Job     string `json:"job"`
}

// ErrTaken says that another user has this email.
var ErrTaken = errors.New("email is taken")

// AddUser keeps a new user and returns their id.
func (s *Store) AddUser(ctx context.Context, u User, passwordHash string) (int64, error) {
	var id int64
	err := s.db.QueryRowContext(ctx,
		`INSERT INTO users (name, subname, email, job, password_hash, created_at) VALUES (?, ?, ?, ?, ?, ?) RETURNING id`,
		u.Name, u.Subname, u.Email, u.Job, passwordHash, time.Now().UnixMicro()).Scan(&id)
	if isUnique(err) {
		return 0, ErrTaken
	}
	if err != nil {
		return 0, fmt.Errorf("add user: %w", err)
	}
	return id, nil
}

// RemoveUser takes a user back who never came to be: their password could
// not be sent.
func (s *Store) RemoveUser(ctx context.Context, id int64) error {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM users WHERE id = ?`, id); err != nil {
		return fmt.Errorf("remove user: %w", err)
	}
	return nil
}

const userColumns = `id, name, subname, email, job`

// User returns the user with this id.
func (s *Store) User(ctx context.Context, id int64) (User, error) {
	var u User
	err := s.db.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = ?`, id).
		Scan(&u.ID, &u.Name, &u.Subname, &u.Email, &u.Job)
	return u, found(err, "find user")
}

// Credentials returns the user with this email and the hash of their
// password.
func (s *Store) Credentials(ctx context.Context, email string) (u User, passwordHash string, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT `+userColumns+`, password_hash FROM users WHERE email = ?`, email).
		Scan(&u.ID, &u.Name, &u.Subname, &u.Email, &u.Job, &passwordHash)
	return u, passwordHash, found(err, "find user")
}

// Users returns up to limit users with ids above after, in their order.
func (s *Store) Users(ctx context.Context, after int64, limit int) ([]User, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT `+userColumns+` FROM users WHERE id > ? ORDER BY id LIMIT ?`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer rows.Close()
	users := []User{}
	for rows.Next() {
		var u User
		if err := rows.Scan(&u.ID, &u.Name, &u.Subname, &u.Email, &u.Job); err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		users = append(users, u)
	}
	return users, rows.Err()
}

// RevokeToken refuses a token until it would have expired anyway, and
// forgets those that have.
func (s *Store) RevokeToken(ctx context.Context, jti string, expires time.Time) error {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM revoked_tokens WHERE expires_at < ?`, time.Now().UnixMicro()); err != nil {
		return fmt.Errorf("forget expired tokens: %w", err)
	}
	_, err := s.db.ExecContext(ctx, `INSERT INTO revoked_tokens (jti, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING`, jti, expires.UnixMicro())
	if err != nil {
		return fmt.Errorf("revoke token: %w", err)
	}
	return nil
}

// Revoked says whether a token is refused.
func (s *Store) Revoked(ctx context.Context, jti string) (bool, error) {
	var is bool
	err := s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM revoked_tokens WHERE jti = ?)`, jti).Scan(&is)
	if err != nil {
		return false, fmt.Errorf("look up token: %w", err)
	}
	return is, nil
}
