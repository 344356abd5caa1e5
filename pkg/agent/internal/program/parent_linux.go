package program

import (
	"os/exec"
	"syscall"
)

// DieWithParent has the system kill cmd when the thread that starts it ends, as
// it does when this process is killed. Whoever starts it stays on that thread
// (runtime.LockOSThread) until cmd has ended.
func DieWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
