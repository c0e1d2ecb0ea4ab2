// Package play holds what every client and every server of the matrix does,
// whatever its language and library: a client plays a Case and notes what it
// saw in a row; a server echoes, obeys commands and reports what it saw.
// testdata/node and testdata/python do the same for their languages.
package play

// Case is one line of the matrix: how a client connects and what it does.
type Case struct {
	Name string `json:"name"`
	// Target is the request target, without the key that the harness adds.
	Target    string            `json:"target"`
	Protocols []string          `json:"protocols"`
	Headers   map[string]string `json:"headers"`
	// Deflate offers permessage-deflate in the library's own words.
	Deflate bool `json:"deflate"`
	// Show names the headers of the server's answer that go into the row.
	Show []string `json:"show"`
	// Body puts the body of a refusal into the row.
	Body  bool   `json:"body"`
	Steps []Step `json:"steps"`
	// Needs names what not every client library can do, and ServerNeeds what
	// not every server library can.
	Needs       []string `json:"needs"`
	ServerNeeds []string `json:"-"`
}

// Step is one thing that a client does.
type Step struct {
	// Op is text, binary, fragments, ping, recv, close or abort. A close
	// waits for the end as well.
	Op   string `json:"op"`
	Text string `json:"text"`
	Size int    `json:"size"`
	// Parts are the fragments of one text message, in hexadecimal.
	Parts  []string `json:"parts,omitempty"`
	Code   int      `json:"code,omitempty"`
	Reason string   `json:"reason,omitempty"`
}

// Result is what one client has to say of one case.
type Result struct {
	Case string `json:"case"`
	// NA is what the library lacks for this case; Row is empty then.
	NA  string   `json:"na"`
	Row []string `json:"row"`
}

// What a library may lack.
const (
	Ping      = "ping"      // sends pings and tells of pongs
	Fragments = "fragments" // sends a message in chosen fragments
	Headers   = "headers"   // sends headers of the caller's
	Response  = "response"  // shows the headers of the server's 101
	Refusal   = "refusal"   // shows status, headers and body of a refusal
	Deflate   = "deflate"   // permessage-deflate
	Abort     = "abort"     // resets the TCP connection
	Codes     = "codes"     // closes with any legal code
	NoCode    = "nocode"    // closes without a code
	Reason    = "reason"    // tells the peer's close reason
)
