package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// ReadFiles reads several files and merges their entries by time. Entries of
// the same time keep the order of their file. Bounds: all of it is in memory.
func ReadFiles(paths ...string) ([]Entry, error) {
	var all []Entry
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open history: %w", err)
		}
		entries, err := Decode(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("read history %s: %w", path, err)
		}
		all = append(all, entries...)
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// Decode reads entries up to the end of r. A last line that has no end of line
// and cannot be read is what a killed process left behind: it is dropped. Any
// other line that cannot be read is an error that names it.
func Decode(r io.Reader) ([]Entry, error) {
	var entries []Entry
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		whole := err == nil
		if err != nil && !errors.Is(err, io.EOF) {
			return entries, fmt.Errorf("line %d: %w", n, err)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			var e Entry
			switch err := json.Unmarshal(line, &e); {
			case err == nil:
				entries = append(entries, e)
			case whole:
				return entries, fmt.Errorf("line %d: %w", n, err)
			}
		}
		if !whole {
			return entries, nil
		}
	}
}
