//go:build !linux

package program

import "os/exec"

// DieWithParent does nothing here: a program has to notice that its stdin has ended.
func DieWithParent(*exec.Cmd) {}
