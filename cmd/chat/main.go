// Chat is a small chat in the manner of Phoenix's tutorials, behind stent:
// `chat` runs all of it, `chat backend` only what stands behind a proxy.
package main

import (
	"os"

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Run     runCmd     `cmd:"" default:"withargs" help:"Run the chat with stent in front of it (the default)."`
	Backend backendCmd `cmd:"" help:"Run the backend alone."`
}

func main() {
	var c commands
	ctx := kong.Parse(&c, kong.Name("chat"), kong.Description("A chat behind stent."), kong.UsageOnError())
	if err := ctx.Run(); err != nil {
		os.Stderr.WriteString("chat: " + err.Error() + "\n")
		os.Exit(1)
	}
}
