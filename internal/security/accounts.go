package security

import (
	"fmt"
	"slices"
	"strings"

	"longhaul/internal/window"
	"longhaul/pkg/contracts"
)

// The suffixes of a tenant's further accounts.
const (
	submitters  = "submitters"
	subscribers = "subscribers"
	clients     = "clients"
	workers     = "worker" // each agent set has one: worker-<set>
)

// account is one of the broker's accounts.
type account struct {
	Name, What string
	// MaxFile and MaxMemory bound its streams; without them it may have none.
	MaxFile, MaxMemory string
	Users              []User
	Exports            []Export
	Imports            []Import
}

// Export is what an account offers to others.
type Export struct {
	Subject string
	Stream  bool // messages that come out; else requests that go in
	Many    bool // a request has several answers
	// To are the accounts that may import it; none: any, which is for viewers,
	// whose accounts come and go, in the same files as this one.
	To []string
}

// Import is what an account takes from another.
type Import struct {
	From, Subject string
	Stream        bool
	// Local is the subject by which it is known here, if that is another one, and
	// Mapped the one that is turned into it before permissions are looked at.
	Local, Mapped string
}

// outside is how a subject of JetStream's API is called inside an account that
// has no streams. There the broker itself answers under the real name that
// JetStream is not enabled; so the account maps the real name, which programs
// use, to this one before permissions are looked at.
func outside(subject string) string { return "streams." + strings.TrimPrefix(subject, api) }

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
		if i.Mapped != "" {
			local := strings.Split(i.Local, ".")
			for n, at := 0, 0; at < len(local); at++ {
				if local[at] == "*" {
					n++
					local[at] = fmt.Sprintf("{{wildcard(%d)}}", n)
				}
			}
			all = append(all, [2]string{i.Mapped, strings.Join(local, ".")})
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

// offers are made to kinds of accounts. Who takes what is more than a matter of
// rights: an answer that is sent to a subject which the asker's account imports
// goes on from there. So no account takes what any of its users may not use.
func offers() []offer {
	writes, reads, all := []string{submitters, clients}, []string{subscribers, clients}, []string{submitters, subscribers, clients, workers}
	readers := append([]string{workers}, reads...)
	return []offer{
		{subject: contracts.SubjectSubmit, to: writes},
		{subject: contracts.SubjectSubmitDirect, to: writes},
		{subject: contracts.SubjectAllCancel, to: writes},
		{subject: contracts.SubjectAllRedrive, to: writes},
		{subject: contracts.SubjectAllSignal, to: writes},
		{subject: contracts.APISubject(contracts.EndpointGet), to: reads},
		{subject: contracts.APISubject(contracts.EndpointList), to: reads},
		{subject: contracts.APISubject(contracts.EndpointStats), to: reads},
		{subject: contracts.APISubject(contracts.EndpointLoad), to: reads},
		{subject: contracts.SubjectAllEvents, stream: true, to: reads},
		{subject: api + "DIRECT.GET.RUNS_LOG." + contracts.SubjectAllEvents, to: all},
		{subject: api + "DIRECT.GET.RUNS_LOG", many: true, to: readers},
		{subject: api + "STREAM.MSG.GET.RUNS_LOG", to: readers},
		{subject: api + "DIRECT.GET.KV_agents", many: true, to: reads},
		{subject: api + "CONSUMER.INFO.RUNS_WORK.*", to: reads},

		{subject: api + "STREAM.INFO.*", to: []string{workers}},
		{subject: api + "CONSUMER.INFO.*.*", to: []string{workers}},
		{subject: api + "STREAM.MSG.GET.KV_runs", to: []string{workers}},
		{subject: api + "DIRECT.GET.KV_runs", many: true, to: []string{workers}},
		{subject: contracts.SubjectAllLog, to: []string{workers}},
		{subject: "$KV.runs.checkpoint.>", to: []string{workers}},
		{subject: "runs.worker.*", stream: true, to: []string{workers}},
	}
}

// ofAgents are the offers to the workers of one agent set.
func ofAgents(set AgentSet) []offer {
	to := []string{workers + "-" + set.Name}
	var all []offer
	for _, agent := range set.Agents {
		all = append(all, offer{subject: "$KV.agents." + agent, to: to},
			offer{subject: api + "DIRECT.GET.KV_agents.$KV.agents." + agent, to: to})
		for _, c := range queuesOf(agent) {
			all = append(all, offer{subject: api + "CONSUMER.MSG.NEXT.RUNS_WORK." + c, many: true, to: to})
			for _, ack := range acks(contracts.StreamWork, c, "") {
				all = append(all, offer{subject: ack.Subject, to: to})
			}
		}
	}
	return all
}

// seen are the offers that viewers take, too.
func seen() []offer {
	return []offer{
		{subject: window.Subject(window.KindLog, "*"), many: true},
		{subject: window.Subject(window.KindLeader, "*")},
		{subject: window.Subject(window.KindRun, "*")},
		{subject: contracts.SubjectAllEvents},
		{subject: api + "DIRECT.GET.RUNS_LOG." + contracts.SubjectAllEvents},
	}
}

// tenant returns the accounts of a tenant. key names the public keys of users.
func tenant(name string, sets []AgentSet, key func(user string) string) []account {
	core := account{Name: name, What: "tenant " + name + ": the streams, Longhaul's services and the operator",
		Users: []User{dispatcher(key(RoleDispatcher)), statekeeper(key(RoleStatekeeper)), operator(key(RoleOperator))}}
	outer := []account{
		{Name: name + "-" + submitters, What: "tenant " + name + ": who submits", Users: []User{submitter(key(RoleSubmitter))}},
		{Name: name + "-" + subscribers, What: "tenant " + name + ": who follows", Users: []User{subscriber(key(RoleSubscriber))}},
		{Name: name + "-" + clients, What: "tenant " + name + ": who does both", Users: []User{client(key(RoleClient))}},
	}
	all := offers()
	for _, s := range sets {
		u := worker(key(RoleWorker+"-"+s.Name), s)
		outer = append(outer, account{Name: name + "-" + u.Name, What: "tenant " + name + ": the workers of agent set " + s.Name, Users: []User{u}})
		all = append(all, ofAgents(s)...)
	}
	for _, asker := range core.Users { // they ask workers, whose answers come back this way
		all = append(all, offer{subject: InboxOf(asker.Key) + ".>", to: []string{workers}})
	}
	for _, o := range seen() {
		if !slices.ContainsFunc(all, func(there offer) bool { return there.subject == o.subject }) {
			all = append(all, o)
		}
	}
	for _, o := range all {
		e := Export{Subject: o.subject, Stream: o.stream, Many: o.many}
		for i := range outer {
			if !o.isFor(strings.TrimPrefix(outer[i].Name, name+"-")) {
				continue
			}
			e.To = append(e.To, outer[i].Name)
			in := Import{From: name, Subject: o.subject, Stream: o.stream}
			if answeredBySystem(o.subject) {
				in.Local, in.Mapped = outside(o.subject), o.subject
			}
			outer[i].Imports = append(outer[i].Imports, in)
		}
		if slices.ContainsFunc(seen(), func(s offer) bool { return s.subject == o.subject }) {
			e.To = nil
		}
		core.Exports = append(core.Exports, e)
	}
	return append([]account{core}, outer...)
}

// isFor reports whether an account of a kind takes it.
func (o offer) isFor(kind string) bool {
	return slices.ContainsFunc(o.to, func(to string) bool { return to == kind || to == workers && strings.HasPrefix(kind, workers+"-") })
}

// view is the account of those who may see one run: the walls around it, not
// only the rights of its users, are made for that run.
func view(tenant, runID string, keys []string) account {
	events := contracts.EventsSubject(runID)
	through := func(kind, instead string) Import {
		s := window.Subject(kind, runID)
		return Import{From: tenant, Subject: s, Local: s, Mapped: instead}
	}
	a := account{Name: tenant + "-view-" + runID, What: "tenant " + tenant + ": who may see run " + runID, Imports: []Import{
		{From: tenant, Subject: events, Stream: true},
		{From: tenant, Subject: api + "DIRECT.GET.RUNS_LOG." + events},
		through(window.KindLog, api+"DIRECT.GET.RUNS_LOG"),
		through(window.KindLeader, api+"STREAM.MSG.GET.RUNS_LOG"),
		through(window.KindRun, contracts.APISubject(contracts.EndpointGet)),
	}}
	for _, key := range keys {
		a.Users = append(a.Users, viewer(key, runID))
	}
	return a
}
