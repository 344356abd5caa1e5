package security

import (
	"fmt"
	"slices"
	"strings"

	"longhaul/pkg/contracts"
)

// The suffixes of a tenant's further accounts.
const (
	clients = "clients"
	workers = "workers"
	viewers = "viewers"
)

// account is one of the broker's accounts.
type account struct {
	Name, What string
	JetStream  bool
	Users      []User
	// Include is a file that holds the users.
	Include string
	Exports []Export
	Imports []Import
}

// Export is what an account offers to others.
type Export struct {
	Subject string
	Stream  bool // messages that come out; else requests that go in
	Many    bool // a request has several answers
	To      []string
	Why     string
}

// Import is what an account takes from another.
type Import struct {
	From, Subject string
	Stream        bool
	// Local is the subject by which it is known here, if that is another one.
	Local string
}

// outside is how a subject of JetStream's API is called inside an account that
// has no streams. There the broker itself answers under the real name that
// JetStream is not enabled; so the account maps the real name, which programs
// use, to this one before permissions are looked at.
func outside(subject string) string { return "streams." + strings.TrimPrefix(subject, api) }

// mapped turns what is asked outside into a mapping of the account.
func mapped(subject string) (from, to string) {
	local := strings.Split(outside(subject), ".")
	n := 0
	for i, token := range local {
		if token == "*" {
			n++
			local[i] = fmt.Sprintf("{{wildcard(%d)}}", n)
		}
	}
	return subject, strings.Join(local, ".")
}

// answeredBySystem are the subjects that need outside.
func answeredBySystem(subject string) bool {
	for _, prefix := range []string{"STREAM.INFO.", "STREAM.MSG.GET.", "CONSUMER.INFO."} {
		if strings.HasPrefix(subject, api+prefix) {
			return true
		}
	}
	return false
}

// Mappings are those of an account, by its imports.
func (a account) Mappings() [][2]string {
	var all [][2]string
	for _, i := range a.Imports {
		if i.Local != "" {
			from, to := mapped(i.Subject)
			all = append(all, [2]string{from, to})
		}
	}
	return all
}

// offer is what a tenant's core account offers, and to which others of the tenant.
type offer struct {
	subject      string
	stream, many bool
	to           []string
}

func offers() []offer {
	all := []string{clients, workers, viewers}
	return []offer{
		{subject: contracts.SubjectSubmit, to: []string{clients}},
		{subject: contracts.SubjectAllCancel, to: []string{clients}},
		{subject: contracts.SubjectAllRedrive, to: []string{clients}},
		{subject: contracts.SubjectAllSignal, to: []string{clients}},
		{subject: contracts.APISubject(contracts.EndpointGet), to: []string{clients}},
		{subject: contracts.APISubject(contracts.EndpointList), to: []string{clients}},
		{subject: contracts.APISubject(contracts.EndpointStats), to: []string{clients}},
		{subject: contracts.SubjectAllEvents, stream: true, to: []string{clients, viewers}},
		{subject: api + "DIRECT.GET.RUNS_LOG." + contracts.SubjectAllEvents, to: all},
		{subject: api + "DIRECT.GET.RUNS_LOG", many: true, to: []string{clients, workers}},
		{subject: api + "STREAM.MSG.GET.RUNS_LOG", to: []string{clients, workers}},
		{subject: api + "DIRECT.GET.KV_agents", many: true, to: []string{clients}},
		{subject: api + "CONSUMER.INFO.RUNS_WORK.*", to: []string{clients}},

		{subject: api + "STREAM.INFO.*", to: []string{workers}},
		{subject: api + "CONSUMER.INFO.*.*", to: []string{workers}},
		{subject: api + "STREAM.MSG.GET.KV_runs", to: []string{workers}},
		{subject: api + "DIRECT.GET.KV_runs", many: true, to: []string{workers}},
		{subject: api + "DIRECT.GET.KV_agents.$KV.agents.*", to: []string{workers}},
		{subject: api + "CONSUMER.MSG.NEXT.RUNS_WORK.*", many: true, to: []string{workers}},
		{subject: "$JS.ACK.RUNS_WORK.>", to: []string{workers}},
		{subject: "$JS.ACK.*.*.RUNS_WORK.>", to: []string{workers}},
		{subject: contracts.SubjectAllLog, to: []string{workers}},
		{subject: "$KV.runs.checkpoint.>", to: []string{workers}},
		{subject: "$KV.agents.*", to: []string{workers}},
		{subject: "runs.worker.*", stream: true, to: []string{workers}},
	}
}

// tenant returns the accounts of a tenant. key names the public keys of users.
func tenant(name string, sets []AgentSet, include string, key func(user string) string) []account {
	core := account{Name: name, JetStream: true, What: "tenant " + name + ": the streams, Longhaul's services and the operator",
		Users: []User{dispatcher(key(RoleDispatcher)), statekeeper(key(RoleStatekeeper)), operator(key(RoleOperator))}}
	outer := []account{
		{Name: name + "-" + clients, What: "tenant " + name + ": applications; there are no streams in here",
			Users: []User{submitter(key(RoleSubmitter)), subscriber(key(RoleSubscriber)), client(key(RoleClient))}},
		{Name: name + "-" + workers, What: "tenant " + name + ": workers; there are no streams in here"},
		{Name: name + "-" + viewers, What: "tenant " + name + ": who may see one run each, by longhaul security grant", Include: include},
	}
	for _, s := range sets {
		outer[1].Users = append(outer[1].Users, worker(key(RoleWorker+"-"+s.Name), s))
	}
	all := offers()
	for _, asker := range core.Users { // they ask workers, whose answers come back this way
		all = append(all, offer{subject: InboxOf(asker.Key) + ".>", to: []string{workers}})
	}
	for _, o := range all {
		e := Export{Subject: o.subject, Stream: o.stream, Many: o.many}
		for i, kind := range []string{clients, workers, viewers} {
			if !slices.Contains(o.to, kind) {
				continue
			}
			e.To = append(e.To, outer[i].Name)
			in := Import{From: name, Subject: o.subject, Stream: o.stream}
			if answeredBySystem(o.subject) {
				in.Local = outside(o.subject)
			}
			outer[i].Imports = append(outer[i].Imports, in)
		}
		core.Exports = append(core.Exports, e)
	}
	return append([]account{core}, outer...)
}
