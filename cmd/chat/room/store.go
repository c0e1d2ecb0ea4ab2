package room

import (
	"context"
	"errors"
	"time"
)

// Lobby is the topic that everybody may join.
const Lobby = "room:lobby"

// Private is the topic that carries everybody's private messages: each
// member sees only those from and to themselves.
const Private = "room:chat"

// User is who has connected.
type User struct {
	// ID is the bare id, unique among all users.
	ID string `json:"id"`
	// Name is what others see.
	Name string `json:"name"`
	// Token names the token by which the user came.
	Token string `json:"-"`
	// Expires is when that token ends; zero is never.
	Expires time.Time `json:"-"`
}

// SocketID is the name of all of a user's sockets.
func (u User) SocketID() string { return "user_socket:" + u.ID }

// Message is something that was said.
type Message struct {
	// Seq is the store's number of it: later messages have higher ones.
	Seq int64 `json:"seq"`
	// ID is the sender's own name for it: what has the same is the same.
	ID string `json:"id"`
	// Topic is the room that it was said in, for private ones too.
	Topic string    `json:"topic"`
	From  string    `json:"from"`
	Name  string    `json:"name"`
	To    string    `json:"to,omitempty"`
	Body  string    `json:"body"`
	At    time.Time `json:"at"`
}

// What a Store says about requests that can't be.
var (
	ErrNoUser = errors.New("no such user")
	// ErrConflict says that another message of the sender has this id.
	ErrConflict = errors.New("another message has this id")
)

// Store keeps what is said and knows who may hear it.
type Store interface {
	// Member says whether a user may join a room other than the lobby.
	Member(ctx context.Context, user, topic string) (bool, error)
	// Direct returns the room that two users share, or ErrNoUser.
	Direct(ctx context.Context, a, b string) (topic string, err error)
	// Save keeps m and returns it as kept, once for each sender and ID: fresh
	// is false where it had been kept before.
	Save(ctx context.Context, m Message) (kept Message, fresh bool, err error)
	// Latest returns the last messages of a room, or of all rooms that user
	// shares with another, oldest first.
	Latest(ctx context.Context, topic string, limit int) ([]Message, error)
	LatestPrivate(ctx context.Context, user string, limit int) ([]Message, error)
}
