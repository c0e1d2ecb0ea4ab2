package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Set by the linker; without that the build's own information is used.
var (
	version = ""
	commit  = ""
)

type versionCmd struct{}

// Run prints one line.
func (versionCmd) Run(s streams) error {
	v, c := build()
	_, err := fmt.Fprintf(s.out, "stent %s (commit %s, %s %s/%s)\n", v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// build returns the version and the commit of this binary, or what stands in
// for them.
func build() (v, c string) {
	v, c = version, commit
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if v == "" {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" {
		v = "dev"
	}
	var modified bool
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			if c == "" {
				c = s.Value
			}
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if c == "" {
		return v, "unknown"
	}
	if modified && commit == "" {
		c += ", modified"
	}
	return v, c
}
