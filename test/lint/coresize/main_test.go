package main

import "testing"

func TestCount(t *testing.T) {
	for name, tc := range map[string]struct {
		src  string
		want int
	}{
		"empty":           {"", 0},
		"comments only":   {"// a\n/* b\nc */\n", 0},
		"code and blanks": {"package p\n\n// c\nvar a = 1 // d\n", 2},
		"two on a line":   {"package p; var a = 1\n", 1},
		"raw string":      {"package p\nvar a = `x\ny\n\nz`\n", 5},
		"inside comment":  {"package p\nvar a = /* x\ny */ 1\n", 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got := count([]byte(tc.src)); got != tc.want {
				t.Errorf("count = %d, want %d", got, tc.want)
			}
		})
	}
}
