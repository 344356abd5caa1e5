package docs

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// block is one of a page's blocks of code.
type block struct {
	line     int
	language string
	prose    string // the paragraph before it
	lines    []string
}

// readPage reads the blocks of a page of Markdown.
func readPage(path string) ([]block, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var blocks []block
	var open *block
	var paragraph []string
	over := false // the paragraph has ended
	for i, line := range strings.Split(string(text), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{line: i + 1, language: language, prose: strings.Join(paragraph, " ")}
		case fence:
			blocks = append(blocks, *open)
			open, paragraph = nil, nil
		case open != nil:
			open.lines = append(open.lines, line)
		case strings.TrimSpace(line) == "":
			over = true
		default:
			if over {
				paragraph, over = nil, false
			}
			paragraph = append(paragraph, line)
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s:%d: a block is not closed", path, open.line)
	}
	return blocks, nil
}

var (
	fileName     = regexp.MustCompile("`([^` ]+)`:$")
	terminalName = regexp.MustCompile(`(first|second|third|fourth) terminal`)
)

// file is the name of the file that the block is, if it is one.
func (b block) file() (string, bool) {
	m := fileName.FindStringSubmatch(b.prose)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// terminal is the name of the terminal that its commands are typed into, if it says one.
func (b block) terminal() string { return terminalName.FindString(b.prose) }

// stays says that its last command is not waited for.
func (b block) stays() bool { return strings.Contains(b.prose, "leave it running") }

// command is one command of a block, and what it is said to print.
type command struct {
	line        int
	text        string
	output      []string
	interrupted bool
}

func (b block) commands() ([]command, error) {
	var all []command
	more := false
	for i, line := range b.lines {
		text, begins := strings.CutPrefix(line, "$ ")
		switch {
		case more:
			last := &all[len(all)-1]
			last.text += "\n" + line
			more = strings.HasSuffix(line, `\`)
		case begins:
			all = append(all, command{line: b.line + 1 + i, text: text})
			more = strings.HasSuffix(text, `\`)
		case len(all) == 0:
			return nil, fmt.Errorf("line %d: %q is printed by no command", b.line+1+i, line)
		case line == "^C":
			all[len(all)-1].interrupted = true
		default:
			last := &all[len(all)-1]
			last.output = append(last.output, strings.TrimRight(line, " "))
		}
	}
	return all, nil
}

// says is a pattern of what is said to be printed, one for each line's end.
func (c command) says() string {
	var p strings.Builder
	p.WriteString("^")
	for _, line := range c.output {
		if line == "…" {
			p.WriteString(`(?:.*\n)*?`)
			continue
		}
		line = regexp.QuoteMeta(line)
		for _, day := range ofTheDay {
			line = day.found.ReplaceAllLiteralString(line, day.pattern)
		}
		p.WriteString(strings.ReplaceAll(line, "…", ".*") + " *\n")
	}
	return p.String()
}

// ofTheDay is what differs each time. found is what stands in a page, quoted.
var ofTheDay = []struct {
	found   *regexp.Regexp
	pattern string
}{
	{regexp.MustCompile(`\d\d:\d\d:\d\d\\\.\d{3}`), `\d\d:\d\d:\d\d\.\d{3}`},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), `\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), `[0-9a-f-]{36}`},
	{regexp.MustCompile(`\bw-[0-9a-z-]{8,}`), `w-[0-9a-z-]+`},
}
