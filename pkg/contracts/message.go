package contracts

import "encoding/json"

// The roles of a message.
const (
	RoleSystem    = "system"
	RoleDeveloper = "developer"
	RoleUser      = "user"
	RoleAssistant = "assistant"
	RoleTool      = "tool"
)

// Message is one message of a conversation, in the OpenAI form.
type Message struct {
	Role       string          `json:"role"`              // one of the Role constants
	Content    json.RawMessage `json:"content,omitempty"` // a string, an array of parts, or null
	Name       string          `json:"name,omitempty"`
	ToolCallID string          `json:"tool_call_id,omitempty"`
	ToolCalls  []ToolCall      `json:"tool_calls,omitempty"`
}

// ToolCall is a model's wish to call a tool.
type ToolCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Function ToolFunction `json:"function"`
}

// ToolFunction names the tool and holds its arguments, JSON in a string.
type ToolFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Text returns a message of the given role with text as its content.
func Text(role, text string) Message {
	content, _ := Encode(text) // a string always encodes
	return Message{Role: role, Content: content}
}

// Text returns the text of the message: its content if that is a string, else
// the text parts of it, joined.
func (m Message) Text() string {
	var s string
	if d := open(m.Content, envelope); len(d.nodes) == 1 && d.kind(0) == kindString && len(d.faults) == 0 {
		return string(unquote(d.raw(0)))
	}
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) == nil {
		for _, p := range parts {
			if p.Type == "text" {
				s += p.Text
			}
		}
	}
	return s
}
