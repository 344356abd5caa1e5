package agent_test

import (
	"fmt"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// What a run remembers is read at each of its attempts: event by event it costs
// the same, however many steps and checkpoints went before.
func BenchmarkRemember(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		events := make([]contracts.Event, 0, 2*n)
		for i := range n {
			events = append(events,
				contracts.Event{Type: contracts.TypeStepCompleted, Payload: fmt.Appendf(nil, `{"name":"step-%d","result":1}`, i)},
				contracts.Event{Type: contracts.TypeCheckpoint})
		}
		b.Run(fmt.Sprintf("steps=%d", n), func(b *testing.B) {
			for b.Loop() {
				steps := map[string]agent.StepRef{}
				for i, e := range events {
					if err := agent.Remember(steps, e, uint64(i+1)); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
		})
	}
}
