//go:build unix

package program

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Groups says that there are process groups, and limits.
const Groups = true

// OwnGroup makes cmd the leader of a process group of its own.
func OwnGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// Terminate asks the group of p to end.
func Terminate(p *os.Process) error { return signalGroup(p, syscall.SIGTERM) }

// KillGroup ends what is left of the group of p, which has itself ended.
func KillGroup(p *os.Process) { _ = signalGroup(p, syscall.SIGKILL) }

func signalGroup(p *os.Process, s syscall.Signal) error {
	err := syscall.Kill(-p.Pid, s)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}
