// Command research hosts an agent that finds out about a topic: it asks a model
// for questions, has it answer them side by side from a small library, and has
// it write a report, which is published once somebody has said yes.
package main

import (
	"flag"
	"fmt"
	"os"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin/chat"
	"longhaul/pkg/host"
)

func main() {
	model := flag.String("model", "", "model to ask, with the key in OPENAI_API_KEY; a stand-in unless told")
	endpoint := flag.String("endpoint", "", "address of an endpoint that speaks the OpenAI protocol; OpenAI's own unless told")
	reports := flag.String("reports", "reports", "directory to publish in")
	flag.Parse()

	cfg := chat.Config{Model: *model, BaseURL: *endpoint}
	switch {
	case *model == "":
		cfg.Model, cfg.BaseURL = "stand-in", startStandIn().URL // it ends with the program
	case os.Getenv("OPENAI_API_KEY") != "": // a server of one's own may need none
		cfg.APIKey = chat.Secret{Env: "OPENAI_API_KEY"}
	}
	research, err := newResearch(cfg, *reports)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	host.Main(host.Config{Agents: []agent.Agent{research}})
}
