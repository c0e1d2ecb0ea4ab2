package proxy

import "github.com/stentproxy/stent/config"

// untilRestart is cfg as a running process can put it into force: what only a
// restart changes stays as it is, so that the configuration in force says what
// is so. Changed are the keys that this concerns.
func untilRestart(cfg, running *config.Config) (next *config.Config, changed []string) {
	c := *cfg
	keep(&changed, "admin.address", &c.Admin.Address, running.Admin.Address)
	keep(&changed, "log.format", &c.Log.Format, running.Log.Format)
	// net/http reads these two for each connection, without a lock.
	keep(&changed, "limits.handshake_timeout", &c.Limits.HandshakeTimeout, running.Limits.HandshakeTimeout)
	keep(&changed, "limits.header_size", &c.Limits.HeaderSize, running.Limits.HeaderSize)
	keep(&changed, "supervisor.partitions", &c.Supervisor.Partitions, running.Supervisor.Partitions)
	return &c, changed
}

func keep[T comparable](changed *[]string, key string, next *T, running T) {
	if *next != running {
		*next = running
		*changed = append(*changed, key)
	}
}
