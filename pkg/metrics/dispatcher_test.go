package metrics

import (
	"testing"

	"longhaul/pkg/contracts"
)

// Whatever is asked for, the kinds are these four.
func TestKinds(t *testing.T) {
	id := contracts.NewRunID()
	for subject, want := range map[string]string{
		contracts.SubjectSubmit: "submit", contracts.CancelSubject(id): "cancel", contracts.RedriveSubject(id): "redrive",
		contracts.ScheduleDueSubject(id): "due",
	} {
		if got := kindOf(subject); got != want {
			t.Errorf("%s is of kind %s, want %s", subject, got, want)
		}
	}
}
