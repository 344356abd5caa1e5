package llm

import (
	"cmp"
	"encoding/json"
	"strings"
)

type object = map[string]any

// chunks cuts a reply into the chunks of a stream: the role, the text word by
// word, each call in three pieces, the reason of the end, and the usage.
func chunks(req Request, r Reply) []string {
	var all []string
	add := func(choices []object, usage any) {
		raw, _ := json.Marshal(object{"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": req.Model,
			"choices": choices, "usage": usage})
		all = append(all, string(raw))
	}
	delta := func(d object, finish any) {
		add([]object{{"index": 0, "delta": d, "finish_reason": finish}}, nil)
	}
	delta(object{"role": "assistant", "content": ""}, nil)
	for _, word := range strings.SplitAfter(r.Text, " ") {
		if word != "" {
			delta(object{"content": word}, nil)
		}
	}
	for i, c := range r.Calls {
		if r.OneIndex {
			i = 0
		}
		delta(object{"tool_calls": []object{{"index": i, "id": c.ID, "type": "function", "function": object{"name": c.Function.Name, "arguments": ""}}}}, nil)
		half := len(c.Function.Arguments) / 2
		for _, piece := range []string{c.Function.Arguments[:half], c.Function.Arguments[half:]} {
			delta(object{"tool_calls": []object{{"index": i, "function": object{"arguments": piece}}}}, nil)
		}
	}
	finish := "stop"
	if len(r.Calls) > 0 {
		finish = "tool_calls"
	}
	delta(object{}, cmp.Or(r.Finish, finish))
	add([]object{}, object{"prompt_tokens": r.Usage.InputTokens, "completion_tokens": r.Usage.OutputTokens,
		"total_tokens": r.Usage.InputTokens + r.Usage.OutputTokens})
	return all
}
