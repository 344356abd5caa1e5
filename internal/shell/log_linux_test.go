package shell

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// terminal opens a pseudo-terminal: what is written to tty is read from master.
func terminal(t *testing.T) (master, tty *os.File) {
	t.Helper()
	const unlock, number = 0x40045431, 0x80045430 // TIOCSPTLCK, TIOCGPTN
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var zero, n uint32
	var failed syscall.Errno
	err = raw.Control(func(fd uintptr) {
		for request, arg := range map[uintptr]*uint32{unlock: &zero, number: &n} {
			if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(arg))); errno != 0 {
				failed = errno
			}
		}
	})
	if err != nil || failed != 0 {
		t.Fatalf("make a terminal: %v, %v", err, failed)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return master, tty
}

// A log is words for people on a terminal, in colours unless they are unwanted, and JSON otherwise.
func TestLogger(t *testing.T) {
	say := func(log *slog.Logger) { log.Info("attempt ended", "run_id", "r1", "duration", 1500*time.Millisecond) }
	for name, tc := range map[string]struct {
		env    string
		colour bool
	}{"colours": {"", true}, "none": {"NO_COLOR", false}} {
		master, tty := terminal(t)
		say(Log{}.Logger(tty, func(key string) string { return map[bool]string{true: "1"}[key == tc.env] }, slog.LevelInfo))
		line, err := bufio.NewReader(master).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(line, "attempt ended") || !strings.Contains(line, "1.5s") || strings.Contains(line, "{") || strings.Contains(line, "\x1b[") != tc.colour {
			t.Errorf("on a terminal, %s: %q", name, line)
		}
	}
	var out bytes.Buffer
	say(Log{}.Logger(&out, os.Getenv, slog.LevelInfo))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["msg"] != "attempt ended" || line["run_id"] != "r1" || line["duration"] != "1.5s" || line["level"] != "INFO" {
		t.Errorf("elsewhere: %q, %v", out.String(), err)
	}
	out.Reset()
	level := "error"
	say(Log{LogLevel: &level}.Logger(&out, os.Getenv, slog.LevelInfo))
	if out.Len() > 0 {
		t.Errorf("below the level: %q", out.String())
	}
}
