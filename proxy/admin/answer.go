package admin

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/plug"
)

// answer sends v as JSON.
func (a *api) answer(w http.ResponseWriter, v any) *plug.Problem {
	body, err := json.Marshal(v)
	if err != nil {
		a.log.Error("answer not encoded", zap.Error(err))
		return &plug.Problem{Status: http.StatusInternalServerError, Detail: "the answer could not be encoded"}
	}
	write(w, http.StatusOK, "application/json", append(body, '\n'))
	return nil
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	// What took its time, as a push to a slow client may, has its answer
	// taken in full.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(status)
	// A client that went away does not read its answer; net/http leaves the
	// body of an answer to HEAD out.
	_, _ = w.Write(body)
}

func badRequest(detail string) *plug.Problem {
	return &plug.Problem{Status: http.StatusBadRequest, Detail: detail}
}

func notFound(detail string) *plug.Problem {
	return &plug.Problem{Status: http.StatusNotFound, Detail: detail}
}
