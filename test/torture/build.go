package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// buildWith builds this program and the binary anew with flags of the go
// command, and returns where they are. It has to be called in the module.
func buildWith(ctx context.Context, dir string, flags ...string) (self, binary string, err error) {
	out := filepath.Join(dir, "build")
	args := append([]string{"build", "-o", out + "/"}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "longhaul/test/torture", "longhaul/cmd/longhaul")...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build with %v: %w\n%s", flags, err, text)
	}
	return filepath.Join(out, "torture"), filepath.Join(out, "longhaul"), nil
}
