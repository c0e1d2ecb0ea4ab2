-- +goose Up
-- The development mailbox: empty where mail goes out by SMTP.
CREATE TABLE sent_mails (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  to_addr TEXT NOT NULL,
  subject TEXT NOT NULL,
  body    TEXT NOT NULL,
  sent_at INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE sent_mails;
