// Package room is a channels server: it speaks the V2 form of Phoenix's
// Channels protocol with unmodified phoenix.js clients. It knows the topics
// of a chat, who is in them, and what was said; where that is kept is its
// Store's business. With a Memory it needs nothing else, so that a program
// without a database may embed it.
package room
