//go:build !race

package statekeeper

const raceEnabled = false
