package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"longhaul/internal/shell"
	"longhaul/pkg/contracts"
)

// console prints to one of the process's streams, for people.
type console struct {
	w        io.Writer
	terminal bool
	color    bool
	now      func() time.Time
}

func newConsole(w io.Writer, plain bool, now func() time.Time) console {
	terminal := shell.IsTerminal(w)
	return console{w: w, terminal: terminal, color: terminal && !plain, now: now}
}

// printf prints. That the reader of a terminal or pipe has gone is nothing a
// command could mend or report.
func (c console) printf(format string, args ...any) { _, _ = fmt.Fprintf(c.w, format, args...) }

func (c console) paint(code, s string) string {
	if !c.color || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (c console) bold(s string) string   { return c.paint("1", s) }
func (c console) dim(s string) string    { return c.paint("2", s) }
func (c console) red(s string) string    { return c.paint("31", s) }
func (c console) green(s string) string  { return c.paint("32", s) }
func (c console) yellow(s string) string { return c.paint("33", s) }
func (c console) cyan(s string) string   { return c.paint("36", s) }

// status shows a status in its colour.
func (c console) status(s contracts.Status) string {
	word := strings.ReplaceAll(string(s), "_", " ")
	switch s {
	case contracts.StatusSucceeded:
		return c.green(word)
	case contracts.StatusFailed, contracts.StatusTimedOut, contracts.StatusRejected:
		return c.red(word)
	case contracts.StatusCancelled, contracts.StatusCancelling:
		return c.yellow(word)
	case contracts.StatusRunning:
		return c.cyan(word)
	}
	return word
}

// next suggests what to do now: pairs of what for and the command.
func (c console) next(pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		width = max(width, len(pairs[i])+1)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		c.printf("  %s %s\n", c.dim(fmt.Sprintf("%-*s", width, pairs[i]+":")), pairs[i+1])
	}
}

// fields prints names and values below one another; empty values are left out.
func (c console) fields(pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, len(pairs[i]))
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			value := strings.ReplaceAll(pairs[i+1], "\n", "\n"+strings.Repeat(" ", width+2))
			c.printf("%s  %s\n", c.dim(fmt.Sprintf("%-*s", width, pairs[i])), value)
		}
	}
}

// table prints rows below a head, in aligned columns. Cells may hold colours.
func (c console) table(head []string, rows [][]string) {
	widths := make([]int, len(head))
	for i, h := range head {
		widths[i] = len(h)
	}
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], visibleWidth(cell))
		}
	}
	line := func(cells []string, paint func(string) string) {
		var b strings.Builder
		for i, cell := range cells {
			b.WriteString(paint(cell))
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-visibleWidth(cell)+2))
			}
		}
		c.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
	line(head, c.dim)
	for _, row := range rows {
		line(row, func(s string) string { return s })
	}
}

// visibleWidth counts the characters of s without its colours.
func visibleWidth(s string) int {
	n := utf8.RuneCountInString(s)
	for {
		start := strings.Index(s, "\x1b[")
		if start < 0 {
			return n
		}
		end := strings.IndexByte(s[start:], 'm')
		if end < 0 {
			return n
		}
		n -= end + 1
		s = s[start+end+1:]
	}
}

// oneLine shows text in one line of at most limit characters. Control
// characters, which a stranger's text may hold, do not reach the terminal.
func oneLine(s string, limit int) string {
	s = strings.Join(strings.Fields(printable(s)), " ")
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	runes := []rune(s)
	return string(runes[:limit-1]) + "…"
}

// printable drops what would steer a terminal, and keeps newlines and tabs.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			return r
		}
		return -1
	}, s)
}
