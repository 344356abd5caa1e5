//go:build race

package statekeeper

// raceEnabled says that the race detector slows everything down tenfold:
// measurements are made smaller and not judged.
const raceEnabled = true
