// Package demo is what `stent demo` runs beside the proxy: a backend that
// knows nothing of stent, with a page, a chat room, the same for Phoenix
// clients, and an echo; a control that outlives it; and the configuration
// that puts the proxy in front of both. All of it is in memory.
package demo
