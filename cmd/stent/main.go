// Stent is a WebSocket edge proxy: clients connect to it and keep their
// connection while backends come and go. See the README for its use.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
)

// The exit codes of every command.
const (
	exitFailed = 1
	exitUsage  = 2 // also check's, for what can't be read
)

// commands is the command line: one field for each command, whose file has
// the command's name.
type commands struct {
	Demo      demoCmd      `cmd:"" help:"Run a small backend and the proxy in front of it, to play with."`
	Serve     serveCmd     `cmd:"" help:"Run the proxy."`
	Check     checkCmd     `cmd:"" help:"Validate a configuration; exit 0 valid, 1 invalid, 2 unreadable."`
	Routes    routesCmd    `cmd:"" help:"Print the route table of a configuration."`
	Schema    schemaCmd    `cmd:"" help:"Print the JSON Schema of the configuration, for editors."`
	Sessions  sessionsCmd  `cmd:"" help:"Look at the sessions of a running proxy."`
	Upstreams upstreamsCmd `cmd:"" help:"Look at the upstream pools of a running proxy."`
	Tree      treeCmd      `cmd:"" help:"Print the supervision tree of a running proxy."`
	Health    healthCmd    `cmd:"" help:"Say whether a running proxy is alive, for container health checks."`
	Bench     benchCmd     `cmd:"" help:"Load a WebSocket that echoes, and measure it."`
	BenchEcho benchEchoCmd `cmd:"" hidden:"" help:"Run the echo of deploy/bench."`
	Version   versionCmd   `cmd:"" help:"Print version, commit and Go version."`
}

// streams are where commands write.
type streams struct {
	out, err io.Writer
}

// exitError is an error with an exit code of its own. A nil err says that
// everything there is to say has been printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage marks err as a mistake in the command line.
func usage(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

func main() {
	os.Exit(run(os.Args[1:], streams{out: os.Stdout, err: os.Stderr}))
}

// run runs one command and returns the exit code.
func run(args []string, s streams) int {
	var c commands
	parser, err := kong.New(&c,
		kong.Name("stent"),
		kong.Description("A WebSocket edge proxy: clients stay while backends come and go."),
		kong.Writers(s.out, s.err),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintln(s.err, "stent:", err)
		return exitFailed
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(s.err, "stent: %v\nTry \"stent --help\".\n", err)
		return exitUsage
	}
	if err = command.Run(s); err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exitError](err)
	if !ok {
		exit = &exitError{code: exitFailed, err: err}
	}
	if exit.err != nil {
		fmt.Fprintln(s.err, "stent:", exit.err)
	}
	return exit.code
}
