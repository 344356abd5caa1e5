package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/contracts"
)

// startStandIn starts a server that speaks the protocol of the real models and
// has some manners of one, so that this example runs with nothing installed.
func startStandIn() *llm.Server { return llm.New("", reply) }

var (
	topicOf = regexp.MustCompile(`report on (.+?) (?:as of|from these)`)
	pageOf  = regexp.MustCompile(`[\w-]+\.md`)
)

func reply(r llm.Request) llm.Reply {
	answer := llm.Reply{Usage: agent.Usage{InputTokens: 400, OutputTokens: 60}, Pause: 5 * time.Millisecond}
	asked, heard := firstQuestion(r.Messages), r.Messages[len(r.Messages)-1]
	switch {
	case strings.HasPrefix(asked, "Plan a report"):
		answer.Text = "Which lenses carry the light so far?\nWhat did the keepers do all night?\nWhich signals help in fog?"
	case strings.HasPrefix(asked, "Write the report"):
		if heard.Role == contracts.RoleTool {
			answer.Text = "The report is " + strings.TrimPrefix(heard.Text(), "error: ") + "."
			break
		}
		topic := topicOf.FindStringSubmatch(asked)[1]
		_, notes, _ := strings.Cut(asked, "\n\n")
		answer.Calls = []contracts.ToolCall{call("publish", publishArgs{Title: "On " + topic, Text: notes})}
	case r.Turn == 1: // a question: look for its longest word
		longest := ""
		for _, word := range strings.FieldsFunc(asked, func(c rune) bool { return c < 'A' }) {
			if len(word) > len(longest) {
				longest = word
			}
		}
		answer.Calls = []contracts.ToolCall{call("search", searchArgs{Words: longest})}
	case r.Turn == 2: // take the last page that was found
		pages := pageOf.FindAllString(heard.Text(), -1)
		answer.Calls = []contracts.ToolCall{call("read", readArgs{Page: pages[len(pages)-1]})}
	default:
		_, text, _ := strings.Cut(heard.Text(), "\n\n")
		sentences := strings.SplitAfterN(strings.Join(strings.Fields(text), " "), ". ", 3)
		answer.Text = strings.Join(sentences[:2], "")
	}
	return answer
}

func firstQuestion(messages []contracts.Message) string {
	for _, m := range messages {
		if m.Role == contracts.RoleUser {
			return m.Text()
		}
	}
	return ""
}

func call(name string, args any) contracts.ToolCall {
	raw, err := json.Marshal(args)
	if err != nil {
		panic(fmt.Sprintf("arguments of %s: %v", name, err))
	}
	return llm.Call("call_1", name, string(raw))
}
