package agent

import (
	"fmt"
	"reflect"

	"longhaul/pkg/contracts"
)

// ToolResult is what Tool.Do may return to say more than a model can read. Its
// Text is the model's answer; its Attachments are in the tool.result event, for
// people to look at, and nowhere else: neither with the model nor remembered.
type ToolResult struct {
	Text        string
	Attachments []Attachment
}

// Attachment is a file, such as an image.
type Attachment struct {
	Name      string `json:"name,omitempty"`
	MediaType string `json:"media_type"`
	Data      []byte `json:"data"` // base64 in JSON
}

// maxAttachments bounds the attachments of one result, in bytes: with the text
// they are one event.
const maxAttachments = 256 << 10

// toolResult is the payload of tool.result.
type toolResult struct {
	contracts.Message
	Attachments []Attachment `json:"attachments,omitempty"`
}

// answerOf makes an answer of what a tool has returned.
func answerOf(v any) (answer, error) {
	result, ok := v.(ToolResult)
	if !ok {
		text, isText := v.(string)
		if !isText {
			raw, err := encode(v)
			if err != nil {
				return answer{}, Permanent(fmt.Errorf("its result, %s, is no JSON: %w", reflect.TypeOf(v), err))
			}
			text = string(raw)
		}
		return answer{Content: contracts.Shorten(text, maxToolResult)}, nil
	}
	a := answer{Content: contracts.Shorten(result.Text, maxToolResult)}
	left := maxAttachments
	for _, one := range result.Attachments {
		if len(one.Data) > left {
			one.Name, one.Data = one.Name+" (too large to keep)", nil
		}
		left -= len(one.Data)
		a.attachments = append(a.attachments, one)
	}
	return a, nil
}
