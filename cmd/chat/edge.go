package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// edge is the admin API of the proxy in front.
type edge struct {
	url, token string
	client     *http.Client
}

func newEdge(url, token string) *edge {
	return &edge{url: strings.TrimSuffix(url, "/"), token: token, client: &http.Client{Timeout: 5 * time.Second}}
}

// revoke has a token refused, and its sessions closed, at the proxy.
func (e *edge) revoke(ctx context.Context, jti string, until time.Time) error {
	body, err := json.Marshal(map[string]any{"jti": jti, "until": until.UTC().Format(time.RFC3339)})
	if err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/api/revocations", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if e.token != "" {
		req.Header.Set("Authorization", "Bearer "+e.token)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("ask the proxy: it answered %s", resp.Status)
	}
	return nil
}
