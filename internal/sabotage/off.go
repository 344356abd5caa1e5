//go:build !sabotage

package sabotage

// Broken reports whether the guarantee is taken out: never, in this build.
func Broken(Switch) bool { return false }
