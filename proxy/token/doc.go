// Package token verifies JSON Web Tokens (RFC 7519), keeps the key sets that
// issuers publish up to date, and remembers which tokens are revoked. It
// knows nothing of HTTP requests: the jwt plug finds the token in one.
//
// The signatures are go-jose's. What it is asked to verify is narrowed before:
// an algorithm must be in the configured list, and a key must be of the kind
// that the algorithm needs, so that neither the token nor a published key
// set can turn a public key into a secret.
package token
