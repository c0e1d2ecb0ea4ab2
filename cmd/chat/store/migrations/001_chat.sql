-- +goose Up
CREATE TABLE users (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  name          TEXT NOT NULL,
  subname       TEXT NOT NULL,
  email         TEXT NOT NULL COLLATE NOCASE UNIQUE,
  job           TEXT NOT NULL,
  password_hash TEXT NOT NULL,
  created_at    INTEGER NOT NULL
) STRICT;

-- A pair has one conversation, whoever began it.
CREATE TABLE conversations (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  low_id     INTEGER NOT NULL REFERENCES users (id),
  high_id    INTEGER NOT NULL REFERENCES users (id),
  created_at INTEGER NOT NULL,
  UNIQUE (low_id, high_id),
  CHECK (low_id < high_id)
) STRICT;
CREATE INDEX conversations_high ON conversations (high_id);

-- A message of the lobby has no conversation. The sender's own id makes a
-- repeated message the same one.
CREATE TABLE messages (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  conversation_id INTEGER REFERENCES conversations (id),
  sender_id       INTEGER NOT NULL REFERENCES users (id),
  client_id       TEXT NOT NULL,
  body            TEXT NOT NULL,
  created_at      INTEGER NOT NULL,
  UNIQUE (sender_id, client_id)
) STRICT;
CREATE INDEX messages_conversation ON messages (conversation_id, id);

CREATE TABLE revoked_tokens (
  jti        TEXT PRIMARY KEY,
  expires_at INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE revoked_tokens;
DROP TABLE messages;
DROP TABLE conversations;
DROP TABLE users;
