// Package agentfile reads which agents a worker hosts from one file of YAML or
// JSON, as `longhaul worker --config` has it. It is strict, and tells all that
// is wrong at once, each fault with its place.
package agentfile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/mcp"
	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
)

// File is what a file says.
type File struct {
	Worker Settings
	Agents []agent.Agent
	// Servers are the MCP servers that agents use. None is connected to before
	// it is needed.
	Servers []*mcp.Server
}

// Close ends the programs, and the sessions, of the MCP servers. It is called
// when no agent is at work any more.
func (f File) Close() {
	var ends sync.WaitGroup
	for _, s := range f.Servers {
		ends.Go(s.Close)
	}
	ends.Wait()
}

// Faults is the error of a file with faults. It says each on a line of its own.
type Faults []Fault

// Fault is one of them.
type Fault struct {
	Path         string // of the file, as it was given
	Line, Column int    // from 1
	Field        string // such as agents[1].chat.model; "" if it is not about one
	Message      string
}

// Error returns all of them.
func (f Faults) Error() string {
	all := make([]string, len(f))
	for i, one := range f {
		field := one.Field
		if field != "" {
			field += ": "
		}
		all[i] = fmt.Sprintf("%s:%d:%d: %s%s", one.Path, one.Line, one.Column, field, one.Message)
	}
	return strings.Join(all, "\n")
}

// Option is how a file is loaded.
type Option func(*builder)

// WithLogger has what MCP servers say, and what becomes of them, go to log.
func WithLogger(log *slog.Logger) Option { return func(b *builder) { b.log = log } }

// maxFile bounds a file, in bytes.
const maxFile = 4 << 20

// Load reads a file and makes its agents. What is wrong with what it says is a
// Faults. Paths in it are relative to its directory.
func Load(path string, options ...Option) (File, error) {
	var b builder
	for _, set := range options {
		set(&b)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return File{}, err
	}
	if len(data) > maxFile {
		return File{}, fmt.Errorf("%s is above %d bytes", path, maxFile)
	}
	b.dir, err = filepath.Abs(filepath.Dir(path))
	if err != nil {
		return File{}, fmt.Errorf("find the directory of %s: %w", path, err)
	}
	return b.read(path, data)
}

func (b *builder) read(path string, data []byte) (File, error) {
	root, doc, err := parse(path, data)
	if err != nil {
		return File{}, err
	}
	var spec fileSpec
	faults := check(doc)
	if err := json.Unmarshal(doc, &spec); err != nil && len(faults) == 0 {
		faults = contracts.Faults{{Message: err.Error()}}
	}
	f := File{Worker: spec.Worker, Agents: b.build(spec)} // as far as it is sound
	f.Servers = b.servers
	var placed Faults
	for i, fault := range append(faults, b.faults...) {
		field, at := place(root, fault.Field)
		if i >= len(faults) && slices.ContainsFunc(placed, func(known Fault) bool { return about(known.Field, field) }) {
			continue
		}
		placed = append(placed, Fault{Path: path, Line: at.Line, Column: at.Column, Field: field, Message: oneLine(fault.Message)})
	}
	if len(placed) == 0 {
		return f, nil
	}
	slices.SortStableFunc(placed, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
	return File{}, placed
}

// about reports whether two faults are about the same: one field, or one in the other.
func about(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	rest, within := strings.CutPrefix(b, a)
	return within && (a == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// oneLine joins the lines of a message.
func oneLine(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, " ")
}

// parse reads YAML, and what it says as JSON.
func parse(path string, data []byte) (ast.Node, json.RawMessage, error) {
	broken := func(err error) error {
		one := Fault{Path: path, Line: 1, Column: 1, Message: err.Error()}
		var at yaml.Error
		if errors.As(err, &at) {
			one.Message = at.GetMessage()
			if t := at.GetToken(); t != nil && t.Position != nil {
				one.Line, one.Column = t.Position.Line, t.Position.Column
			}
		}
		return Faults{one}
	}
	file, err := parser.ParseBytes(data, 0)
	switch {
	case err != nil:
		return nil, nil, broken(err)
	case len(file.Docs) == 0 || file.Docs[0].Body == nil:
		return nil, nil, broken(errors.New("there is nothing in the file"))
	case len(file.Docs) > 1:
		return nil, nil, Faults{{Path: path, Line: start(file.Docs[1].Body).Line, Column: 1, Message: "there is more than one document in the file"}}
	}
	root := file.Docs[0].Body
	var v any
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil {
		return nil, nil, broken(err)
	}
	doc, err := contracts.Encode(v)
	if err != nil {
		return nil, nil, broken(err)
	}
	return root, doc, nil
}

// check holds the file against the schema that its types stand for.
func check(doc json.RawMessage) contracts.Faults {
	raw, err := schema.For(reflect.TypeFor[fileSpec]())
	if err == nil {
		var s *schema.Schema
		if s, err = schema.Compile(raw); err == nil {
			return append(s.Check(doc, ""), zeros(doc)...)
		}
	}
	return contracts.Faults{{Message: err.Error()}}
}
