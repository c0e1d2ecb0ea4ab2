package config

import (
	"embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// sources are the files with the types: their comments describe the keys in
// the JSON Schema too, so that nothing has to be said twice.
//
//go:embed config.go entry.go guard.go jwt.go plug.go route.go scalar.go secret.go upstream.go
var sources embed.FS

// descriptions maps Type and Type.Field to their comments.
func descriptions() (map[string]string, error) {
	files, err := sources.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("list the sources: %w", err)
	}
	found := make(map[string]string)
	for _, entry := range files {
		text, err := sources.ReadFile(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read the sources: %w", err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse the sources: %w", err)
		}
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.TYPE {
				collect(d, found)
			}
		}
	}
	return found, nil
}

func collect(decl *ast.GenDecl, found map[string]string) {
	for _, spec := range decl.Specs {
		t, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		found[t.Name.Name] = sentence(decl.Doc)
		s, ok := t.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range s.Fields.List {
			text := sentence(f.Doc)
			if text == "" {
				text = sentence(f.Comment)
			}
			for _, name := range f.Names {
				found[t.Name.Name+"."+name.Name] = text
			}
		}
	}
}

// sentence joins the lines of a comment.
func sentence(c *ast.CommentGroup) string {
	return strings.Join(strings.Fields(c.Text()), " ")
}
