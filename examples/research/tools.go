package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/agent"
)

//go:embed library
var library embed.FS

type searchArgs struct {
	Words string `json:"words" jsonschema:"words to look for"`
}

type readArgs struct {
	Page string `json:"page" jsonschema:"a page that search has named"`
}

// libraryTools are what the reader may do. The schemas of their arguments are
// derived from the types above, and what does not satisfy them is refused.
func libraryTools() (*agent.Tools, error) {
	search := agent.NewTool("search", "Finds pages of the library that hold any of the words.",
		func(_ context.Context, args searchArgs) ([]string, error) {
			var found []string
			pages, err := library.ReadDir("library")
			for _, p := range pages {
				text, readErr := library.ReadFile("library/" + p.Name())
				if readErr != nil {
					return nil, readErr
				}
				if slices.ContainsFunc(strings.Fields(strings.ToLower(args.Words)), func(word string) bool {
					return strings.Contains(strings.ToLower(string(text)), word)
				}) {
					found = append(found, p.Name())
				}
			}
			return found, err
		})
	read := agent.NewTool("read", "Returns a page of the library.",
		func(_ context.Context, args readArgs) (string, error) {
			text, err := library.ReadFile("library/" + args.Page)
			return string(text), err // the model is told of an error, and may ask for another page
		})
	return agent.NewTools(search, read)
}

type publishArgs struct {
	Title string `json:"title"`
	Text  string `json:"text" jsonschema:"the report, in Markdown"`
}

// publishTool has an effect on the world: it is done once, and only after
// somebody has said yes.
func publishTool(dir string) agent.Tool {
	publish := agent.NewTool("publish", "Publishes a report.",
		func(ctx context.Context, args publishArgs) (string, error) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return "", err
			}
			// <run id>/<step>, the same in each attempt: if a worker dies in here
			// the report is written again, over itself.
			run, _, _ := strings.Cut(agent.StepKey(ctx), "/")
			file := filepath.Join(dir, run+".md")
			err := os.WriteFile(file, fmt.Appendf(nil, "# %s\n\n%s\n", args.Title, args.Text), 0o644)
			return "published as " + file, err
		})
	publish.RequiresConfirmation = true
	publish.ConfirmWithin = 24 * time.Hour
	return publish
}
