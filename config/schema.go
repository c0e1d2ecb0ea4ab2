package config

import "errors"

// Schema returns the JSON Schema of stent.yaml, for editors.
func Schema() ([]byte, error) { return nil, errors.New("no schema yet") }
