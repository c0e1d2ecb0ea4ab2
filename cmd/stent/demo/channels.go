package demo

import (
	"crypto/rand"
	"net/http"
	"strings"

	channels "github.com/stentproxy/stent/cmd/chat/room"
)

// maxGuest bounds a guest's name, in bytes.
const maxGuest = 40

// newChannels is a chat for Phoenix clients, with what they said in memory.
func newChannels() *channels.Server { return &channels.Server{Authenticate: guest} }

// guest takes anybody in, under the name in the query: there is nothing to
// protect here.
func guest(r *http.Request) (channels.User, error) {
	name := strings.ToValidUTF8(strings.TrimSpace(r.URL.Query().Get("name")), "")
	if name == "" || len(name) > maxGuest {
		name = "guest-" + strings.ToLower(rand.Text()[:6])
	}
	return channels.User{ID: name, Name: name}, nil
}
