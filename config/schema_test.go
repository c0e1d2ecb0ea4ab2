package config

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// compileSchema returns the schema as a validator sees it.
func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("stent.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("stent.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// instance reads a YAML file as a validator wants it.
func instance(t *testing.T, text []byte) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		t.Skipf("no YAML: %v", err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Skipf("no JSON: %v", err)
	}
	value, err = jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestSchemaAcceptsGoodFiles(t *testing.T) {
	schema := compileSchema(t)
	each(t, "good", func(t *testing.T, path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance(t, text)); err != nil {
			t.Error(err)
		}
	})
}

// A schema can't know names, sums or the environment, but keys, kinds, closed
// sets of names and what is not supported yet.
func TestSchemaRefusesBadFiles(t *testing.T) {
	schema := compileSchema(t)
	for _, name := range []string{
		"unknown_key", "unknown_key_far", "null_struct", "null_list", "null_scalar", "null_entry",
		"kind_map", "kind_list", "kind_boolean", "kind_integer", "kind_number", "kind_duration", "kind_size",
		"kind_percent", "negative", "enum", "secret_kind", "secret_file_key", "secret_file_none",
		"plug_unknown", "plug_unknown_options", "plug_two_names", "plug_kind", "plug_options_key",
		"handler_later", "handler_kind", "listener_acme", "process_later", "route_later",
		"path_required", "upstream_required", "targets_required", "target_kind",
		"balance", "balance_hash", "balance_hash_empty",
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile("testdata/bad/" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			if schema.Validate(instance(t, text)) == nil {
				t.Error("accepted")
			}
		})
	}
}

// Every key is described, so that an editor has something to show.
func TestSchemaDescribesEveryKey(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch value := value.(type) {
		case []any:
			for i, v := range value {
				walk(item(path, i), v)
			}
		case map[string]any:
			if properties, ok := value["properties"].(map[string]any); ok {
				for name, p := range properties {
					if p, ok := p.(map[string]any); ok && p["description"] == nil {
						t.Errorf("no description: %s.%s", path, name)
					}
				}
			}
			for name, v := range value {
				walk(join(path, name), v)
			}
		}
	}
	walk("", doc)
}

func TestUnsupported(t *testing.T) {
	got := Unsupported()
	want := []string{
		"routes[].flight_recorder",
		"routes[].handlers[].validate",
		"routes[].handlers[].wasm",
		"routes[].handlers[].webhook",
		"tracing",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
