//go:build !unix

package builtin

import (
	"os"
	"os/exec"
)

// Without process groups only the program itself can be ended, and at once.

// ownGroups says that there are process groups, and limits.
const ownGroups = false

func ownGroup(*exec.Cmd) {}

func terminate(p *os.Process) error { return p.Kill() }

func killGroup(*os.Process) {}
