package main

import (
	"errors"
	"fmt"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy"
)

type checkCmd struct {
	configFlag
}

// Run prints every problem, and what is doubtful.
func (c checkCmd) Run(s streams) error {
	cfg, _, err := compile(c.path())
	if err != nil {
		problems, ok := errors.AsType[config.Errors](err)
		if !ok {
			return &exitError{code: exitUsage, err: err}
		}
		for _, p := range problems {
			fmt.Fprintln(s.err, p)
		}
		fmt.Fprintf(s.err, "%s: %s\n", c.path(), count(len(problems), "problem"))
		return &exitError{code: exitFailed}
	}
	warnings := cfg.Warnings()
	for _, w := range warnings {
		fmt.Fprintln(s.err, "warning:", w)
	}
	valid := "valid"
	if len(warnings) > 0 {
		valid += ", with " + count(len(warnings), "warning")
	}
	_, err = fmt.Fprintf(s.out, "%s: %s\n", c.path(), valid)
	return err
}

// compile reads the file at path and turns it into what the proxy would run.
// The error is config.Errors where the file could be read.
func compile(path string) (*config.Config, *proxy.Snapshot, error) {
	var snapshot *proxy.Snapshot
	cfg, err := config.Load(path, config.WithCompile(func(cfg *config.Config) (err error) {
		snapshot, err = proxy.Compile(cfg, handlers)
		return err
	}))
	return cfg, snapshot, err
}

// count is "1 problem" or "2 problems".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
