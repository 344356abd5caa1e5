package main

import (
	"context"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
)

// The programs that are built anew for some faults.
const (
	programTorture  = "longhaul/test/torture"
	programLonghaul = "longhaul/cmd/longhaul"
)

// buildWith builds a program with flags of the go command into a directory, and
// returns where it is. It has to be called in the module.
func buildWith(ctx context.Context, dir, program string, flags ...string) (string, error) {
	out := filepath.Join(dir, path.Base(program))
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", out}, flags...), program)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s with %v: %w\n%s", program, flags, err, text)
	}
	return out, nil
}
