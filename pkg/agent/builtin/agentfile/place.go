package agentfile

import (
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// suffixes are what fields of the file have behind the names that faults have
// of them: a key is api_key_env or api_key_file, a timeout timeout_seconds.
func suffixes() []string { return []string{"", "_seconds", "_bytes", "_env", "_file"} }

// place finds where a field stands, such as agents[1].chat.model: the field as
// the file has it, and its position. Of one that is not there it is the
// position of what it would be in.
func place(root ast.Node, field string) (string, *token.Position) {
	node, at, found := root, start(root), ""
	for path := field; path != "" && node != nil; {
		name, rest, index := cut(path)
		child, key, pos := step(node, name, index)
		if pos == nil {
			break
		}
		path, node, at = rest, child, pos
		switch {
		case index >= 0:
			found += "[" + strconv.Itoa(index) + "]"
		case found == "":
			found = key
		default:
			found += "." + key
		}
		if path == "" {
			return found, at
		}
	}
	return field, at
}

// cut takes the first step off a path: a name, or an index if that is not below 0.
func cut(path string) (name, rest string, index int) {
	if inner, ok := strings.CutPrefix(path, "["); ok {
		number, rest, _ := strings.Cut(inner, "]")
		if n, err := strconv.Atoi(number); err == nil && n >= 0 {
			return "", strings.TrimPrefix(rest, "."), n
		}
	}
	end := strings.IndexAny(path[1:], ".[") + 1
	if end == 0 {
		return path, "", -1
	}
	return path[:end], strings.TrimPrefix(path[end:], "."), -1
}

// step goes down from node; a nil position is nothing there.
func step(node ast.Node, name string, index int) (child ast.Node, key string, at *token.Position) {
	switch n := node.(type) {
	case *ast.AnchorNode:
		return step(n.Value, name, index)
	case *ast.TagNode:
		return step(n.Value, name, index)
	case *ast.SequenceNode:
		if index >= 0 && index < len(n.Values) {
			return n.Values[index], "", start(n.Values[index])
		}
	case *ast.MappingValueNode:
		return member([]*ast.MappingValueNode{n}, name)
	case *ast.MappingNode:
		return member(n.Values, name)
	}
	return nil, "", nil
}

func member(values []*ast.MappingValueNode, name string) (ast.Node, string, *token.Position) {
	for _, suffix := range suffixes() {
		for _, v := range values {
			if key := v.Key.GetToken(); key != nil && key.Value == name+suffix {
				return v.Value, key.Value, key.Position
			}
		}
	}
	return nil, "", nil
}

// start is where a node begins: that of a mapping is its first key.
func start(node ast.Node) *token.Position {
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 && !n.IsFlowStyle {
			return n.Values[0].Key.GetToken().Position
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken().Position
	}
	if node != nil && node.GetToken() != nil {
		return node.GetToken().Position
	}
	return &token.Position{Line: 1, Column: 1}
}
