//go:build !unix

package program

import (
	"os"
	"os/exec"
)

// Without process groups only the program itself can be ended, and at once.

// Groups says that there are process groups, and limits.
const Groups = false

// OwnGroup does nothing here.
func OwnGroup(*exec.Cmd) {}

// Terminate ends p.
func Terminate(p *os.Process) error { return p.Kill() }

// KillGroup does nothing here.
func KillGroup(*os.Process) {}
