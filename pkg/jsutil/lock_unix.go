//go:build unix

package jsutil

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFile takes the lock of a directory; it is held until the file is closed
// or the process ends in any way.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close() //nolint:errcheck // nothing was written
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("another process, or another broker of this one, uses the directory (it holds %s); stop it or take another directory", path)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
