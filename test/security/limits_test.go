package security

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"longhaul/internal/security"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/secured"
)

// A tenant fills what it may on each broker, and no more, however many replicas
// there are; then it is refused, and told so.
func TestLimits(t *testing.T) {
	for name, nodes := range map[string][]security.Node{"one": nil, "three": {{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}} {
		t.Run(name, func(t *testing.T) {
			d := secured.New(t, security.Plan{MaxFile: "2MB", Nodes: nodes})
			d.Topology(t, "main")
			nc := d.Connect(t, "main-submitter", nil)
			js, err := jsutil.JetStream(nc)
			if err != nil {
				t.Fatal(err)
			}
			const size, limit = 100_000, 2 << 20
			stored := 0
			for err == nil && stored < 2*limit {
				if _, err = js.Publish(t.Context(), contracts.SubjectSubmit, make([]byte, size)); err == nil {
					stored += size
				}
			}
			// The broker sums up what its fellows hold now and then, so that a little more gets in.
			if err == nil || stored < limit-2*size || stored > limit+limit/2 {
				t.Errorf("%d bytes were taken of %d, then: %v", stored, limit, err)
			}
			if err := nc.Publish(contracts.SubjectSubmit, make([]byte, 1<<20+1)); !errors.Is(err, nats.ErrMaxPayload) {
				t.Errorf("a message of more than a mebibyte: %v", err)
			}
			o := d.Options(t, 0)
			if o.MaxConn != 10_000 || o.MaxSubs != 50_000 || o.MaxControlLine != 4<<10 || o.MaxPending != 64<<20 || o.AuthTimeout != 3 || o.WriteDeadline == 0 {
				t.Errorf("the bounds are %d connections, %d subscriptions, %d of control, %d pending, %v s to say who one is, %v to write",
					o.MaxConn, o.MaxSubs, o.MaxControlLine, o.MaxPending, o.AuthTimeout, o.WriteDeadline)
			}
		})
	}
}
