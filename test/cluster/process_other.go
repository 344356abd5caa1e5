//go:build !linux

package cluster

import "syscall"

// attributes: elsewhere than on Linux a program that is killed leaves its
// processes behind.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
