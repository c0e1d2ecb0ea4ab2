package proxy

import "github.com/stentproxy/stent/proxy/relay"

// replayer returns what repeats a session's protocol state to a new
// upstream, or nil.
func (s *Session) replayer() relay.Replayer { return nil }
