//go:build !linux

package main

import "errors"

func mount(string, int) error { return errors.New("small file systems are mounted on Linux alone") }

func unmount(string) error { return nil }
