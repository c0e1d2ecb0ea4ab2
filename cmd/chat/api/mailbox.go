package api

import (
	"html/template"
	"net/http"

	"go.uber.org/zap"
)

// mailboxPage escapes what users have written, as their names.
var mailboxPage = template.Must(template.New("mailbox").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sent mails</title>
<link rel="stylesheet" href="/assets/chat.css">
<body class="narrow">
<h1>Sent mails</h1>
<p>What would have been mailed: no SMTP server is configured, so this is development. <a href="/">To the chat</a></p>
{{range .}}<article class="card mail">
<h2>{{.Subject}}</h2>
<p>to <strong>{{.To}}</strong>, <time datetime="{{.At.Format "2006-01-02T15:04:05Z07:00"}}">{{.At.Format "2006-01-02 15:04:05"}} UTC</time></p>
<pre>{{.Body}}</pre>
</article>
{{else}}<p>Nothing yet.</p>
{{end}}</body>
</html>
`))

// mailbox shows what was mailed.
func (a *API) mailbox(w http.ResponseWriter, r *http.Request) {
	mails, err := a.Store.Mails(r.Context())
	if err != nil {
		a.Log.Error("show the mailbox", zap.Error(err))
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	mailboxPage.Execute(w, mails)
}
