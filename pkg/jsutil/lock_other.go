//go:build !unix

package jsutil

import "os"

// lockFile does without a lock: where there is no flock, keeping two brokers
// off one directory is left to whoever starts them.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }
