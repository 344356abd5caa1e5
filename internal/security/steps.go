package security

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// NextSteps says in words what is to be done with what Init has made.
func (m Made) NextSteps() string {
	p := m.Plan
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	at := func(parts ...string) string { return filepath.Join(append([]string{m.Dir}, parts...)...) }
	user := func(role string) string { return at("users", fileName(p.Tenants[0], role)+".json") }

	say("%s holds the keys of a new deployment, for nobody but you to read. What to do next:\n", m.Dir)
	say("1. Put tls/ca-key.pem%s in a safe place, away from every server: whoever", map[bool]string{true: " and tls/route-ca-key.pem"}[len(p.Nodes) > 0])
	say("   has such a key can pass for a broker. It is needed again when certificates run out, in %d years.", certYears)
	if len(p.Nodes) == 0 {
		say("2. Start the broker, with broker/ and tls/ at %s:", p.Install)
		say("     LONGHAUL_DATA=/var/lib/longhaul nats-server -c %s", filepath.Join(p.Install, m.Brokers[0]))
	} else {
		say("2. Give each broker broker/, and of tls/ its own files and those of both CAs without their keys,")
		say("   at %s, and start all of them:", p.Install)
		for i, path := range m.Brokers {
			data := "/var/lib/longhaul"
			if p.Nodes[len(p.Nodes)-1].Host == p.Nodes[0].Host { // one machine for all
				data += "/" + p.Nodes[i].Name
			}
			say("     LONGHAUL_DATA=%s nats-server -c %s", data, filepath.Join(p.Install, path))
		}
	}
	replicas := ""
	if len(p.Nodes) > 0 {
		replicas = " --replicas 3"
	}
	agents := ""
	for _, s := range p.AgentSets {
		for _, key := range s.Agents {
			if !strings.Contains(agents, "--agent "+key+" ") && key != AnyAgent {
				agents += "--agent " + key + " "
			}
		}
	}
	if agents == "" {
		agents = "--agent KEY "
	}
	say("3. Create the streams, and the queues of the agents: of all users the operator alone may.")
	say("     longhaul topology create%s %s--context %s", replicas, agents, user(RoleOperator))
	say("4. Start the services, each with its own user's file and key, and tls/ca.pem:")
	services := []string{RoleDispatcher, RoleStatekeeper}
	for _, s := range services {
		say("     longhaul %s%s --context %s", s, replicas, user(s))
	}
	for _, s := range p.AgentSets {
		say("     longhaul worker --config agents.yaml%s --context %s", replicas, user(RoleWorker+"-"+s.Name))
	}
	say("5. See whether all is well, and submit a run:")
	say("     longhaul doctor%s --context %s --system-context %s", replicas, user(RoleOperator), at("users", RoleSystem+".json"))
	say("     longhaul submit AGENT --follow --context %s", user(RoleClient))
	if others := slices.Clone(p.Tenants[1:]); len(others) > 0 {
		say("\nThe same from 3 on for %s, with the files of each.", strings.Join(others, ", "))
	}
	say("\nA client that is not longhaul or nats needs the three lines of its context: nkey, ca, inbox_prefix.")
	say("docs/security.md says what each role may do, how keys are changed, and how one run is shown to somebody.")
	return strings.TrimRight(b.String(), "\n")
}
