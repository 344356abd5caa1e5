package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// skewVariable holds the seconds by which a skewed worker's wall clock is ahead.
const skewVariable = "LONGHAUL_TORTURE_SKEW_SECONDS"

// clockSkew is the fault's name.
const clockSkew = "clock-skew"

// In a build for skewed workers package time adds them to what Now returns.
// Nothing else could: the system's clock is everybody's, its time namespaces
// leave the wall clock alone, and Go asks for the time without a system call
// that could be caught. The monotonic clock stays right, as it does on a
// machine whose wall clock is wrong.
const (
	nowBefore = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + unixToInternal, Local}"
	nowAfter  = "\tsec, nsec, mono := runtimeNow()\n\tsec += skewSeconds\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + unixToInternal, Local}"
	skewFile  = `package time

import "syscall"

var skewSeconds = func() (n int64) {
	s, _ := syscall.Getenv("` + skewVariable + `")
	sign := int64(1)
	for i, c := range s {
		if i == 0 && c == '-' {
			sign = -1
		} else if c >= '0' && c <= '9' {
			n = n*10 + int64(c-'0')
		}
	}
	return n * sign
}()
`
)

// buildSkewed builds this program with such a clock, and returns where it is.
func buildSkewed(ctx context.Context, dir string, flags ...string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the go command's library: %w", err)
	}
	lib := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(lib, "time.go"))
	if err != nil {
		return "", err
	}
	if bytes.Count(source, []byte(nowBefore)) != 1 {
		return "", errors.New("time.Now of this version of Go is not the one that can be changed here")
	}
	own := filepath.Join(dir, "skew")
	if err := os.MkdirAll(own, 0o700); err != nil {
		return "", err
	}
	replaced := map[string]string{}
	for name, text := range map[string][]byte{"time.go": bytes.Replace(source, []byte(nowBefore), []byte(nowAfter), 1), "skew.go": []byte(skewFile)} {
		replaced[filepath.Join(lib, name)] = filepath.Join(own, name)
		if err := os.WriteFile(filepath.Join(own, name), text, 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	list := filepath.Join(own, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	return buildWith(ctx, own, programTorture, append(flags, "-overlay", list)...)
}

// skewing starts a worker again with its wall clock ahead, or behind, and
// after a while with a right one.
func skewing(ctx context.Context, h *harm) error {
	sv := h.one(kindWorker)
	skew := h.between(2*time.Second, 20*time.Second).Truncate(time.Second)
	if h.rng.IntN(2) == 0 {
		skew = -skew
	}
	p := sv.process()
	sv.setSkew(skew)
	h.info(history.FaultKill, sv.who(), p.PID(), "")
	err := errors.Join(p.Kill(), h.await(ctx, sv, p))
	f := history.Fault{Name: history.FaultSkew, Target: sv.who(), Skew: skew}
	h.write(history.OpBegin, time.Now(), f, "")
	_ = cluster.Sleep(ctx, h.between(3*time.Second, 15*time.Second))
	p = sv.process()
	sv.setSkew(0)
	h.info(history.FaultKill, sv.who(), p.PID(), "")
	// Not ctx: a clock that is wrong is a fault, and must be over when it heals.
	err = errors.Join(err, p.Kill(), h.await(context.WithoutCancel(ctx), sv, p))
	h.write(history.OpEnd, time.Now(), f, "")
	return err
}
