//go:build !unix

package builtin

import (
	"os"
	"os/exec"
)

// Without process groups only the program itself can be ended, and at once.

func ownGroup(*exec.Cmd) {}

func terminate(p *os.Process) error { return p.Kill() }

func killGroup(*os.Process) {}
