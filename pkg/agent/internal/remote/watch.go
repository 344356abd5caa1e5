package remote

import (
	"io"
	"net/http"
)

// maxErrorBody is how much is read of an answer that is an error.
const maxErrorBody = 64 << 10

// Watch has the body of res call alive at every sign of life, and end early if
// it is an error's.
func Watch(res *http.Response, alive func()) {
	var body io.Reader = res.Body
	if res.StatusCode >= http.StatusBadRequest {
		body = io.LimitReader(body, maxErrorBody)
	}
	res.Body = &watched{Reader: body, Closer: res.Body, alive: alive}
}

type watched struct {
	io.Reader
	io.Closer
	alive func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.alive()
	}
	return n, err
}
