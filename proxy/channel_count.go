package proxy

import (
	"bytes"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// maxNames bounds the topics and the events of one route that the metrics
// name: clients make them up.
const maxNames = 100

// otherName stands for the names beyond maxNames.
const otherName = "other"

// noText stands for what is no UTF-8, as a label has to be: in binary
// messages a name may be any bytes.
const noText = "\uFFFD"

// channelCount counts what happens to the channels of one route. It
// implements phoenix.Counter.
type channelCount struct {
	route  string
	joins  *prometheus.CounterVec
	errors *prometheus.CounterVec
	events *prometheus.CounterVec

	mu sync.RWMutex
	// guarded by mu
	topics map[string]bool
	counts map[string]*eventCount // by event
}

// eventCount counts one event by who sends it.
type eventCount struct{ client, upstream prometheus.Counter }

func newChannelCount(route string, m *metrics) *channelCount {
	return &channelCount{
		route: route, joins: m.channelJoins, errors: m.channelErrors, events: m.channelEvents,
		topics: make(map[string]bool), counts: make(map[string]*eventCount),
	}
}

// Join implements phoenix.Counter.
func (c *channelCount) Join(topic, result string) {
	c.joins.WithLabelValues(c.route, c.topic(topic), result).Inc()
}

// Error implements phoenix.Counter.
func (c *channelCount) Error(topic, from string) {
	c.errors.WithLabelValues(c.route, c.topic(topic), from).Inc()
}

// Event implements phoenix.Counter.
func (c *channelCount) Event(from string, event []byte) {
	n := c.event(event)
	if from == Client.String() {
		n.client.Inc()
	} else {
		n.upstream.Inc()
	}
}

// topic is what the metrics call a topic.
func (c *channelCount) topic(name string) string {
	name = strings.ToValidUTF8(name, noText)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.topics[name] {
		if len(c.topics) >= maxNames {
			return otherName
		}
		c.topics[name] = true
	}
	return name
}

func (c *channelCount) event(name []byte) *eventCount {
	if !utf8.Valid(name) { // seldom, and the rest without a copy
		name = bytes.ToValidUTF8(name, []byte(noText))
	}
	c.mu.RLock()
	n := c.counts[string(name)]
	if n == nil && len(c.counts) > maxNames {
		n = c.counts[otherName]
	}
	c.mu.RUnlock()
	if n != nil {
		return n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := string(name)
	if len(c.counts) >= maxNames {
		known = otherName
	}
	if n = c.counts[known]; n == nil {
		n = &eventCount{
			client:   c.events.WithLabelValues(c.route, Client.String(), known),
			upstream: c.events.WithLabelValues(c.route, Upstream.String(), known),
		}
		c.counts[known] = n
	}
	return n
}
