package main

import (
	"fmt"

	"github.com/stentproxy/stent/config"
)

type schemaCmd struct{}

// Run prints the schema.
func (schemaCmd) Run(s streams) error {
	schema, err := config.Schema()
	if err != nil {
		return fmt.Errorf("make the schema: %w", err)
	}
	_, err = fmt.Fprintf(s.out, "%s\n", schema)
	return err
}
