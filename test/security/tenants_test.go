package security

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/security"
	"longhaul/pkg/contracts"
	"longhaul/test/secured"
)

// Two tenants on one cluster of three use the same agents, the same run id and
// the same idempotency key, and neither sees, reaches or disturbs the other:
// not even one whose operator deletes all that there is.
func TestTenants(t *testing.T) {
	d := secured.New(t, security.Plan{Tenants: []string{"red", "blue"}, AgentSets: []security.AgentSet{{Name: "mail", Agents: []string{"echo"}}},
		Nodes: []security.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}})
	id := contracts.NewRunID()
	both := make(map[string]*stage)
	operators := make(map[string]*arena)
	for _, tenant := range []string{"red", "blue"} {
		operators[tenant] = &arena{operator: d.Topology(t, tenant, "echo")}
		s := &stage{d: d, tenant: tenant}
		s.start(t, "dispatcher", "dispatcher", d.Replicas())
		s.start(t, "statekeeper", "statekeeper", d.Replicas())
		s.start(t, "worker-mail", "worker", "--agent", "echo", d.Replicas())
		both[tenant] = s
	}
	for tenant, s := range both {
		s.waitForAgent(t, "echo")
		for _, args := range [][]string{{"--run-id", id}, {"--idempotency-key", "k1"}} {
			out := s.must(t, "client", append([]string{"submit", "echo", "--wait", "--message", "words of " + tenant}, args...)...)
			if !strings.Contains(out, "words of "+tenant) {
				t.Errorf("%s was answered %q", tenant, out)
			}
		}
		if list := s.must(t, "subscriber", "list", "--json"); strings.Count(list, `"run_id"`) != 2 {
			t.Errorf("%s sees\n%s", tenant, list)
		}
	}

	// Whatever is said in blue is not heard in red, by nobody.
	for _, role := range []string{"subscriber", "client", "operator", "worker-mail", "dispatcher"} {
		nc := d.Connect(t, "red-"+role, nil)
		var subs []*nats.Subscription
		for _, subject := range []string{contracts.SubjectAllEvents, ">", "_INBOX.>", "_R_.>", "$JS.EVENT.>"} {
			sub, err := nc.SubscribeSync(subject) // that some of it is refused is not the point here
			if err != nil {
				t.Fatal(err)
			}
			subs = append(subs, sub)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		both["blue"].must(t, "client", "submit", "echo", "--message", "a secret", "--wait")
		for _, sub := range subs {
			for {
				m, err := sub.NextMsg(time.Millisecond)
				if err != nil {
					break
				}
				if strings.Contains(string(m.Data), "blue") || strings.Contains(string(m.Data), "a secret") || strings.HasPrefix(m.Subject, "runs.") {
					t.Errorf("red's %s heard %s: %.80q", role, m.Subject, m.Data)
				}
			}
		}
	}

	// Red's operator may do anything in red.
	for _, p := range both["red"].processes {
		p.end(t)
	}
	blue := operators["blue"].atRest(t)
	js := operators["red"].operator
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	if now := operators["blue"].state(t); now != blue {
		t.Errorf("blue changed: %s", firstDifference(blue, now))
	}
	if out := both["blue"].must(t, "client", "submit", "echo", "--message", "still there", "--wait"); !strings.Contains(out, "still there") {
		t.Errorf("blue was answered %q", out)
	}
}

// atRest waits until nothing has changed for a while and returns the state.
func (a *arena) atRest(t *testing.T) string {
	t.Helper()
	state, since := a.state(t), time.Now()
	waitFor(t, "the tenant to be at rest", func() bool {
		if now := a.state(t); now != state {
			state, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	return state
}
