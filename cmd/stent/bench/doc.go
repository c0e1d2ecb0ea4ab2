// Package bench is what `stent bench` runs: a WebSocket load generator whose
// every message is one that an echo server has to send back unchanged.
//
// It is built to not flatter. Each echo is compared byte by byte. In rate
// mode messages are due at times that were fixed beforehand and latency
// counts from then, so a server that stalls is charged for every message
// that it made wait (no coordinated omission), and for those that it never
// answered. Two targets are compared by turns in one run, because the same
// program costs something else a minute later.
//
// It speaks the protocol with package frame rather than through a WebSocket
// library, which took half as much CPU again for a message, without checking
// any, on a machine that the target often shares.
package bench
