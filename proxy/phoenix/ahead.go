package phoenix

// ahead counts the client's joins and leaves that are on their way to a
// server, or held for one: whatever is sent in their stead overtakes them.
// Those of the topics beyond maxChannels stand for any topic.
type ahead struct {
	byTopic map[string]int
	others  int
}

// of reports whether there may be a join or a leave of the topic ahead.
func (a *ahead) of(topic string) bool { return a.byTopic[topic] > 0 || a.others > 0 }

func (a *ahead) add(topic string) {
	switch {
	case a.byTopic[topic] == 0 && len(a.byTopic) >= maxChannels:
		a.others++
		return
	case a.byTopic == nil:
		a.byTopic = make(map[string]int)
	}
	a.byTopic[topic]++
}

// done takes one of the topic off, which a server has now.
func (a *ahead) done(topic string) {
	switch n := a.byTopic[topic]; {
	case n > 1:
		a.byTopic[topic] = n - 1
	case n == 1:
		delete(a.byTopic, topic)
	case a.others > 0:
		a.others--
	}
}
