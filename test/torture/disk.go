package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// diskFull is the fault's name. It takes a small file system for each broker,
// which not everybody may mount.
const diskFull = "disk-full"

// diskSize is one's, in bytes, and diskPerMinute what it has beside that for
// each minute of load. It is in memory, and takes no more than is written,
// but all of it while it is full.
const (
	diskSize      = 192 << 20
	diskPerMinute = 8 << 20
)

// mountDisks gives each broker a disk of its own that can be filled, or takes
// the fault off the list and says why.
func (s *system) mountDisks() {
	at := slices.Index(s.o.faults, diskFull)
	if at < 0 {
		return
	}
	size := diskSize + int(s.o.duration/time.Minute)*diskPerMinute
	for i := range s.o.brokers {
		dir := cluster.DataDir(s.dir, i)
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			err = mount(dir, size)
		}
		if err != nil {
			s.say("%s is left out: %v", diskFull, err)
			s.o.faults = slices.Delete(slices.Clone(s.o.faults), at, at+1)
			return // what is mounted does no harm
		}
		s.disks = append(s.disks, dir)
	}
}

// fillDisk leaves a broker no room on its disk. It stops storing then; after
// a while there is room again, and somebody restarts it.
func fillDisk(ctx context.Context, h *harm) error {
	i := h.rng.IntN(len(h.s.disks))
	n, ballast := h.s.nodes[i], filepath.Join(h.s.disks[i], "ballast")
	defer h.begin(history.FaultBroker, n.Name, n.PID())()
	err := fill(ballast)
	_ = cluster.Sleep(ctx, h.between(2*time.Second, 8*time.Second)) // over earlier if the torture is
	if h.rng.IntN(2) == 0 {
		err = errors.Join(err, n.Kill()) // which it may not survive by itself either
	}
	if removeErr := os.Remove(ballast); removeErr != nil && !errors.Is(removeErr, os.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return errors.Join(err, n.Terminate(stopTime), n.Start())
}

// fill writes a file until nothing more can be written.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	for _, step := range []int{1 << 20, 4 << 10} { // the last bytes too
		for chunk := make([]byte, step); err == nil; {
			_, err = f.Write(chunk)
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, io.ErrShortWrite) {
			err = nil
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	return nil
}
