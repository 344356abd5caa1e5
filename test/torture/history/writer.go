package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// Writer appends entries to a file. Any number of goroutines may use one, and
// any number of processes may have the same file open: each entry is one write
// of a whole line with O_APPEND. Nothing is buffered, so that a kill -9 loses
// no entry whose Write has returned.
type Writer struct {
	file  *os.File
	actor string
	ids   atomic.Int64
}

// Open opens or creates the file at path. actor fills in Entry.Actor where an
// entry leaves it empty.
func Open(path, actor string) (*Writer, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	return &Writer{file: file, actor: actor}, nil
}

// NextID gives a number for a new operation: 1, 2, 3 …, unique in this Writer.
// The checker ties entries by actor and number, so that an actor of a second
// life (a worker started again) needs a new name.
func (w *Writer) NextID() int64 { return w.ids.Add(1) }

// Write appends e. It fills in Time, if it is zero, and Actor, if it is empty.
func (w *Writer) Write(e Entry) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	if e.Actor == "" {
		e.Actor = w.actor
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode history entry: %w", err)
	}
	if _, err := w.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write history entry: %w", err)
	}
	return nil
}

// Close closes the file. A second Close does nothing.
func (w *Writer) Close() error {
	if err := w.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close history: %w", err)
	}
	return nil
}
