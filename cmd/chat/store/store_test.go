package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/stentproxy/stent/cmd/chat/room"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ room.Store = (*Store)(nil)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// people adds users and returns their ids as text.
func people(t *testing.T, s *Store, names ...string) []string {
	t.Helper()
	var ids []string
	for _, name := range names {
		id, err := s.AddUser(t.Context(), User{Name: name, Subname: "X", Email: name + "@example.com"}, "hash")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, strconv.FormatInt(id, 10))
	}
	return ids
}

func TestMigrationsGoUpAndDown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "with ? and % in it.db")
	s := open(t, path)
	people(t, s, "ann")
	s.Close()
	s = open(t, path) // nothing is left to do, and all is there
	if _, err := s.User(t.Context(), 1); err != nil {
		t.Errorf("after opening again: %v", err)
	}
	provider, err := newMigrations(s.db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	var tables int
	if err := s.db.QueryRow(`SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'goose%' AND name NOT LIKE 'sqlite%'`).Scan(&tables); err != nil || tables != 0 {
		t.Errorf("after going down: %d tables, %v", tables, err)
	}
	if err := s.migrate(t.Context()); err != nil {
		t.Errorf("up again: %v", err)
	}
}

func TestOpenSaysWhichFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "such", "folder.db")
	if _, err := Open(t.Context(), path); err == nil {
		t.Error("opened a file in no folder")
	}
}

func TestUsers(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "chat.db"))
	people(t, s, "ann", "bob", "cyd")
	if _, err := s.AddUser(t.Context(), User{Email: "ANN@example.com"}, ""); !errors.Is(err, ErrTaken) {
		t.Errorf("email in capitals: got %v, want ErrTaken", err)
	}
	if u, hash, err := s.Credentials(t.Context(), "Bob@Example.com"); err != nil || u.ID != 2 || hash != "hash" {
		t.Errorf("credentials: got %+v %q %v", u, hash, err)
	}
	if _, err := s.User(t.Context(), 9); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: got %v", err)
	}
	if page, err := s.Users(t.Context(), 1, 1); err != nil || len(page) != 1 || page[0].Name != "bob" {
		t.Errorf("page: got %+v, %v", page, err)
	}
}

func TestConversationIsUniquePerPair(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "chat.db"))
	people(t, s, "ann", "bob", "cyd")
	var wg sync.WaitGroup
	var mu sync.Mutex
	ids, made := make(map[int64]bool), 0
	for i := range 8 {
		wg.Go(func() {
			a, b := int64(1), int64(2)
			if i%2 == 1 {
				a, b = b, a
			}
			c, fresh, err := s.Converse(context.Background(), a, b)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if ids[c.ID] = true; fresh {
				made++
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 || made != 1 {
		t.Errorf("got conversations %v, made %d times", ids, made)
	}
	if _, _, err := s.Converse(t.Context(), 1, 1); !errors.Is(err, ErrSelf) {
		t.Errorf("with oneself: got %v", err)
	}
	if _, _, err := s.Converse(t.Context(), 1, 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("with nobody: got %v", err)
	}
	for user, want := range map[string]bool{"1": true, "2": true, "3": false, "x": false} {
		if got, err := s.Member(t.Context(), user, "room:1"); got != want || err != nil {
			t.Errorf("member %s: got %v, %v", user, got, err)
		}
	}
	for _, topic := range []string{"room:01", "room:+1", "room:2", "room:", "room:1; DROP TABLE users"} {
		if got, err := s.Member(t.Context(), "1", topic); got || err != nil {
			t.Errorf("member of %q: got %v, %v", topic, got, err)
		}
	}
}

func TestMessagesAreKeptOnce(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "chat.db"))
	ids := people(t, s, "ann", "bob")
	topic, err := s.Direct(t.Context(), ids[1], ids[0])
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	for range 8 {
		wg.Go(func() {
			_, first, err := s.Save(context.Background(), room.Message{ID: "m1", Topic: topic, From: ids[0], Body: "hi"})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if first {
				fresh++
			}
		})
	}
	wg.Wait()
	if fresh != 1 {
		t.Errorf("kept %d times", fresh)
	}
	if _, _, err := s.Save(t.Context(), room.Message{ID: "m1", Topic: room.Lobby, From: ids[0], Body: "hi"}); !errors.Is(err, room.ErrConflict) {
		t.Errorf("the id in another room: got %v", err)
	}
	got, err := s.LatestPrivate(t.Context(), ids[1], 10)
	if err != nil || len(got) != 1 || got[0].To != ids[1] || got[0].From != ids[0] || got[0].Name != "ann X" || got[0].Topic != topic {
		t.Errorf("private: got %+v, %v", got, err)
	}
}

func TestPages(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "chat.db"))
	ids := people(t, s, "ann")
	for i := range 5 {
		if _, _, err := s.Save(t.Context(), room.Message{ID: fmt.Sprint(i), Topic: room.Lobby, From: ids[0], Body: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	bodies := func(all []room.Message, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, m := range all {
			text += m.Body
		}
		return text
	}
	if got := bodies(s.Latest(t.Context(), room.Lobby, 2)); got != "34" {
		t.Errorf("latest: got %s", got)
	}
	if got := bodies(s.Before(t.Context(), room.Lobby, 4, 2)); got != "12" {
		t.Errorf("before: got %s", got)
	}
	if got := bodies(s.After(t.Context(), room.Lobby, 3, 10)); got != "34" {
		t.Errorf("after: got %s", got)
	}
}
