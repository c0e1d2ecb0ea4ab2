// Package rules is the message handler that is written in the configuration:
// a list of conditions in the expression language of expr-lang/expr, each
// with one result. The first rule whose condition holds decides about a
// message; when none does, the message goes on unchanged.
//
// Conditions see these names:
//
//	from     "client" or "upstream"
//	type     "text" or "binary"
//	size     of the message, in bytes
//	text     the message when it is text, else ""
//	json     the message decoded, nil when it is not JSON text
//	session  the session's key
//	id       the socket id, "" without one
//	route    the route's path
//	attempt  which upstream this is: 1 for the first
//	headers  of the handshake, by any spelling of their names
//	claims   of the token, nil without one
//
// What can fail does not surprise: a condition that fails while it runs, such
// as json.op on a message that is not JSON, does not hold, so json?.op is
// only shorter, not safer. A reply or replacement that fails leaves nothing
// to send, and the message it was to replace must not pass either: it is
// dropped, and the log has a warning, once a minute at most for a route.
//
// JSON of more than 100,000 values or 1000 levels is not decoded, so that a
// message costs no more than its size promises, nor is an object with equal
// keys, of which any one may count elsewhere. A backend may decode it, so it
// does not pass for a text that is no JSON: an expression that gets to it, by
// json or fromJSON, stops the session with 1008, and the log has such a
// warning, too.
package rules
