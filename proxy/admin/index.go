package admin

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/upstream"
)

//go:embed index.html
var indexHTML string

var indexPage = template.Must(template.New("index").Parse(indexHTML))

// indexPolicy lets the page have its own style and nothing else: what stands
// in it are names that clients and backends have chosen.
var indexPolicy = func() string {
	_, rest, _ := strings.Cut(indexHTML, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	return fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; frame-ancestors 'none'", base64.StdEncoding.EncodeToString(sum[:]))
}()

// index answers the page that a browser begins with: what there is now.
func (a *api) index(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	all := a.proxy.Sessions()
	var page bytes.Buffer
	if err := indexPage.Execute(&page, struct {
		Upstreams []upstream.PoolInfo
		Sessions  []proxy.SessionInfo
		Total     int
	}{a.proxy.Pools().Snapshot(), list(all, filter{}, "", defaultLimit).Sessions, len(all)}); err != nil {
		a.log.Error("page not made", zap.Error(err))
		return &plug.Problem{Status: http.StatusInternalServerError, Detail: "the page could not be made"}
	}
	h := w.Header()
	h.Set("Content-Security-Policy", indexPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	write(w, http.StatusOK, "text/html; charset=utf-8", page.Bytes())
	return nil
}
