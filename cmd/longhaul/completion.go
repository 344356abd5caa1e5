package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completeCommand is what the scripts call: the words up to the one under the
// cursor follow it.
const completeCommand = "__complete"

// completionCmd prints a completion script.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown below the command's summary.
func (completionCmd) Help() string {
	return `Examples:

    source <(longhaul completion bash)
    longhaul completion zsh > "${fpath[1]}/_longhaul"
    longhaul completion fish > ~/.config/fish/completions/longhaul.fish`
}

// Run runs the command.
func (c *completionCmd) Run(a *app) error {
	scripts := map[string]string{
		"bash": `# bash completion for longhaul
_longhaul() {
  local IFS=$'\n'
  COMPREPLY=($("${COMP_WORDS[0]}" ` + completeCommand + ` "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _longhaul longhaul
`,
		"zsh": `#compdef longhaul
_longhaul() {
  local -a found
  found=("${(@f)$(${words[1]} ` + completeCommand + ` "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[*]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
if [[ "${funcstack[1]}" = _longhaul ]]; then _longhaul "$@"; else compdef _longhaul longhaul; fi
`,
		"fish": `# fish completion for longhaul
function __longhaul_complete
  set -l words (commandline -opc) (commandline -ct)
  $words[1] ` + completeCommand + ` $words[2..-1] 2>/dev/null
end
complete -c longhaul -a '(__longhaul_complete)'
`,
	}
	_, err := fmt.Fprint(a.stdout, scripts[c.Shell])
	return err
}

// candidates returns what the last of words may become.
func candidates(root *kong.Node, words []string) []string {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "=" }) // bash cuts --flag=value at it
	if len(words) == 0 {
		words = []string{""}
	}
	node, last := root, words[len(words)-1]
	var pending *kong.Flag // takes the next word as its value
	for _, w := range words[:len(words)-1] {
		switch {
		case pending != nil:
			pending = nil
		case strings.HasPrefix(w, "-"):
			if f := findFlag(node, w); f != nil && !f.IsBool() && !strings.Contains(w, "=") {
				pending = f
			}
		default:
			if child := findCommand(node, w); child != nil {
				node = child
			}
		}
	}
	var all []string
	switch {
	case pending != nil:
		all = values(pending.Value)
	case strings.HasPrefix(last, "-"):
		for _, group := range node.AllFlags(true) {
			for _, f := range group {
				all = append(all, "--"+f.Name)
			}
		}
	default:
		for _, child := range node.Children {
			if !child.Hidden {
				all = append(all, child.Name)
			}
		}
		for _, p := range node.Positional {
			all = append(all, values(p)...)
		}
	}
	var found []string
	for _, c := range all {
		if strings.HasPrefix(c, last) {
			found = append(found, c)
		}
	}
	return found
}

// values are those that a flag or argument admits, if they are few.
func values(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return slices.DeleteFunc(v.EnumSlice(), func(s string) bool { return s == "" })
}

func findFlag(node *kong.Node, word string) *kong.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			if f.Name == name || !strings.HasPrefix(word, "--") && string(f.Short) == name {
				return f
			}
		}
	}
	return nil
}

func findCommand(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}
