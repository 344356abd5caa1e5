package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"longhaul/pkg/agent"
)

// resultOf makes a tool's result of what a server has answered: text as it is,
// structured content as JSON, and files as attachments, of which the model is told
// that they are there. What it calls an error is one.
func (s *Server) resultOf(r *sdk.CallToolResult) (any, error) {
	var out agent.ToolResult
	var parts []string
	if r.StructuredContent != nil {
		raw, err := json.Marshal(r.StructuredContent)
		if err != nil {
			return nil, fmt.Errorf("its answer: %w", err)
		}
		parts = append(parts, string(raw))
	}
	attach := func(name, mediaType string, data []byte) {
		out.Attachments = append(out.Attachments, agent.Attachment{Name: name, MediaType: mediaType, Data: data})
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("[%s of %d bytes, which you cannot see] %s", mediaType, len(data), name)))
	}
	for _, c := range r.Content {
		switch c := c.(type) {
		case *sdk.TextContent:
			if r.StructuredContent == nil || !same(c.Text, r.StructuredContent) { // which servers send twice, for older clients
				parts = append(parts, c.Text)
			}
		case *sdk.ImageContent:
			attach("", c.MIMEType, c.Data)
		case *sdk.AudioContent:
			attach("", c.MIMEType, c.Data)
		case *sdk.ResourceLink:
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("[%s] %s", c.URI, c.Name)))
		case *sdk.EmbeddedResource:
			switch {
			case c.Resource == nil:
			case len(c.Resource.Blob) > 0:
				attach(c.Resource.URI, c.Resource.MIMEType, c.Resource.Blob)
			default:
				parts = append(parts, fmt.Sprintf("[%s]\n%s", c.Resource.URI, c.Resource.Text))
			}
		default:
			parts = append(parts, fmt.Sprintf("[%T, which cannot be shown]", c))
		}
	}
	out.Text = s.cfg.hide(strings.ToValidUTF8(strings.Join(parts, "\n"), "\uFFFD"))
	if r.IsError {
		if out.Text == "" {
			out.Text = "the tool has failed, and does not say why"
		}
		return nil, errors.New(out.Text)
	}
	return out, nil
}

// same reports whether text says the same as v in JSON.
func same(text string, v any) bool {
	var said any
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	return dec.Decode(&said) == nil && reflect.DeepEqual(said, v)
}
