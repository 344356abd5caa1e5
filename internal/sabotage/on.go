//go:build sabotage

package sabotage

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// Broken reports whether the environment takes the guarantee out. It panics if
// a name there is no switch: a typing error must not pass for a tester that
// sees nothing.
func Broken(s Switch) bool { return chosen()[s] }

var chosen = sync.OnceValue(func() map[Switch]bool {
	broken, err := parse(os.Getenv(Env))
	if err != nil {
		panic(err)
	}
	for s := range broken {
		fmt.Fprintln(os.Stderr, "SABOTAGE: this process works without:", s)
	}
	return broken
})

func parse(list string) (map[Switch]bool, error) {
	byName := map[string]Switch{}
	for _, s := range Switches() {
		byName[s.String()] = s
	}
	broken := map[Switch]bool{}
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		s, known := byName[name]
		if !known {
			return nil, fmt.Errorf("%s: %q is no switch; there are %v", Env, name, Switches())
		}
		broken[s] = true
	}
	return broken, nil
}
