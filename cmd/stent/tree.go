package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/stentproxy/stent/supervisor"
)

type treeCmd struct {
	adminFlags
}

// Run prints the tree as it stands.
func (t treeCmd) Run(s streams) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.getJSON(context.Background(), request{path: "/api/tree"}, &raw); err != nil {
		return err
	}
	if t.JSON {
		return printJSON(s.out, raw)
	}
	var root supervisor.Node
	if err := json.Unmarshal(raw, &root); err != nil {
		return fmt.Errorf("decode the tree: %w", err)
	}
	return printNode(s.out, root, "", "")
}

// printNode prints n after lead, and all below it after indent.
func printNode(w io.Writer, n supervisor.Node, lead, indent string) error {
	line := lead + printable(n.Name)
	if n.Workers != nil {
		line += fmt.Sprintf("  %d sessions", *n.Workers)
	}
	if n.Restarts > 0 {
		line += fmt.Sprintf("  %d restarts", n.Restarts)
	}
	if _, err := fmt.Fprintln(w, line); err != nil {
		return err
	}
	for i, child := range n.Children {
		branch, below := "├── ", "│   "
		if i == len(n.Children)-1 {
			branch, below = "└── ", "    "
		}
		if err := printNode(w, child, indent+branch, indent+below); err != nil {
			return err
		}
	}
	return nil
}
