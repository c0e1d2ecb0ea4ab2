// Package store keeps the chat in an SQLite database: users, conversations,
// messages and revoked tokens.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is one open database.
type Store struct {
	db *sql.DB
}

// Open opens the database in the file path, made where there is none, and
// brings it up to date.
func Open(ctx context.Context, path string) (*Store, error) {
	// FULL: an acknowledged message survives the machine, not only the
	// process. IMMEDIATE: a transaction that will write waits for its turn at
	// its begin, where waiting helps.
	pragmas := url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "busy_timeout(5000)"},
		"_txlock": {"immediate"},
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+pragmas.Encode())
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	db.SetMaxOpenConns(8)
	s := &Store{db}
	if err := s.migrate(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.db.PingContext(ctx) }

func (s *Store) migrate(ctx context.Context) error {
	provider, err := newMigrations(s.db)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func newMigrations(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return provider, nil
}

// ErrNotFound says that there is no such row.
var ErrNotFound = errors.New("not found")

// found makes an absent row an ErrNotFound.
func found(err error, what string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// violates says whether err is of a constraint of this kind.
func violates(err error, code int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == code
}

func isUnique(err error) bool  { return violates(err, sqlite3.SQLITE_CONSTRAINT_UNIQUE) }
func isForeign(err error) bool { return violates(err, sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY) }

// Times are kept as microseconds since 1970.
func toTime(micros int64) time.Time { return time.UnixMicro(micros).UTC() }
