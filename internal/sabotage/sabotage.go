// Package sabotage lets a test take one guarantee out of the services, to see
// whether the tests that watch over it notice: `make recovery-sabotage` and
// `make torture-sabotage`.
//
// A build without the tag "sabotage", which is every build that is shipped,
// reads nothing, and each Broken call is the constant false, compiled away.
// With the tag, LONGHAUL_SABOTAGE in the environment lists the switches by
// name, with commas between them.
//
// A call site is one line that spoils the mechanism itself, not its outcome.
package sabotage

// Env is the variable that a build with the tag reads.
const Env = "LONGHAUL_SABOTAGE"

// Switch is one guarantee that can be taken out.
type Switch int

// The switches, named in the environment as String says.
const (
	// Fencing: appends to a log that exists expect nothing of its end, and a
	// worker that learns that its run is another's goes on all the same.
	Fencing Switch = iota
	// AskFirst: a worker that is handed a run which another one holds takes it
	// without asking.
	AskFirst
	// Attempts: a takeover counts anew, so that a run may kill its worker for ever.
	Attempts
	// Sweeper: nobody looks for lost work, or for work that was not begun.
	Sweeper
	// GapFilling: a follower reads the log once and never again, whatever live
	// messages it misses.
	GapFilling
	// Takeover: the watchdog does not ping, and dead workers keep their leases
	// until these run out.
	Takeover
	// Checkpoint: an attempt begins without the state that the log names.
	Checkpoint
	// NotBefore: a retry does not wait for its time.
	NotBefore
	// Turns: a run of a conversation waits for nobody, and begins with nothing.
	Turns
	count
)

// String is the switch's name in the environment.
func (s Switch) String() string {
	return [count]string{"fencing", "ask-first", "attempts", "sweeper", "gap-filling", "takeover", "checkpoint", "not-before", "turns"}[s]
}

// Switches lists them all.
func Switches() []Switch {
	all := make([]Switch, count)
	for s := range all {
		all[s] = Switch(s)
	}
	return all
}
