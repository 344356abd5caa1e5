package security

import (
	"slices"

	"longhaul/internal/window"
	"longhaul/pkg/contracts"
)

// Right is a subject that a user may publish to, or subscribe to, and what for.
type Right struct{ Subject, Why string }

// User is one user of the broker.
type User struct {
	Name string // unique in its tenant; the name of its key's file
	What string // who it is for
	Key  string // its public nkey

	Publish, Subscribe []Right
}

// The roles, which are the names of their users; a worker's user is named
// worker-<agent set>.
const (
	RoleDispatcher  = "dispatcher"
	RoleStatekeeper = "statekeeper"
	RoleOperator    = "operator"
	RoleWorker      = "worker"
	RoleSubmitter   = "submitter"
	RoleSubscriber  = "subscriber"
	RoleClient      = "client"
	RoleSystem      = "system"
)

// api is the prefix of JetStream's own subjects.
const api = "$JS.API."

// InboxOf is the inbox prefix of the user with a public key: what
// jsutil.Connect sets for a connection that it makes with that key.
func InboxOf(key string) string { return "_INBOX." + key }

func inbox(key string) Right {
	return Right{InboxOf(key) + ".>", "answers to its own questions, and nobody else's"}
}

// acks are both forms of the ack subjects of a consumer (or all, ">").
func acks(stream, consumer, why string) []Right {
	if consumer != ">" {
		consumer += ".>"
	}
	return []Right{{"$JS.ACK." + stream + "." + consumer, why}, {"$JS.ACK.*.*." + stream + "." + consumer, "the same, in its form with domain and account"}}
}

// look is what comparing the topology takes; /readyz does it with each service's own user.
func look() []Right {
	return []Right{
		{api + "STREAM.INFO.*", "compare the topology with what stands"},
		{api + "CONSUMER.INFO.*.*", "the same, and find its consumers"},
	}
}

func dispatcher(key string) User {
	return User{
		Name: RoleDispatcher, Key: key, What: "takes in submissions and commands, makes runs of them",
		Publish: slices.Concat(look(), []Right{
			{api + "CONSUMER.MSG.NEXT.RUNS_INBOX.*", "take what clients ask for"},
			{api + "CONSUMER.MSG.NEXT.RUNS_SCHEDULE.*", "take runs whose time has come"},
		}, acks(contracts.StreamInbox, ">", "answer them"), acks(contracts.StreamSchedule, ">", "answer them"), []Right{
			{contracts.SubjectAllLog, "append to run logs"},
			{contracts.SubjectAllWork, "queue runs"},
			{contracts.SubjectAllScheduleAt, "put a run off"},
			{"_R_.>", "answer requests for runs from other accounts"},
			{"_INBOX.>", "answer those from its own"},
			{contracts.SubjectAllCancel, "cancel a run that another of its conversation interrupts"},
			{"$KV.runs.key.*", "claim idempotency keys"},
			{"$KV.runs.conversation.*", "give runs their turn in conversations"},
			{"$KV.runs.round.>", "settle a redrive against a removal"},
			{"runs.worker.*", "ask a holder to cancel"},
			{api + "STREAM.MSG.GET.RUNS_LOG", "read the head of a log, from the leader"},
			{api + "STREAM.MSG.GET.RUNS_INBOX", "see whether older submissions wait"},
			{api + "STREAM.MSG.GET.RUNS_WORK", "see whether a run is queued"},
			{api + "STREAM.MSG.GET.KV_runs", "read keys and conversations"},
			{api + "STREAM.MSG.GET.KV_agents", "look up an agent before refusing it"},
			{api + "DIRECT.GET.RUNS_LOG", "read a log"},
			{api + "DIRECT.GET.RUNS_LOG." + contracts.SubjectAllEvents, "read the last event of a log"},
			{api + "STREAM.MSG.DELETE.RUNS_WORK", "take a cancelled run out of its queue"},
			{api + "STREAM.PURGE.RUNS_SCHEDULE", "take a cancelled run's schedule away"},
			{api + "CONSUMER.CREATE.KV_agents.*.$KV.agents.>", "read all registered agents"},
			{api + "CONSUMER.DELETE.KV_agents.*", "and stop reading"},
			{"$JS.FC.KV_agents.>", "keep pace with that reading"},
		}),
		Subscribe: []Right{inbox(key), {contracts.SubjectSubmitDirect, "be asked for runs"}},
	}
}

func statekeeper(key string) User {
	return User{
		Name: RoleStatekeeper, Key: key, What: "keeps statuses, answers queries, watches over runs",
		Publish: slices.Concat(look(), []Right{
			{api + "CONSUMER.LIST.RUNS_WORK", "measure the queues"},
			{api + "INFO", "see how full the account is"},
			{api + "CONSUMER.MSG.NEXT.RUNS_LOG." + contracts.ConsumerProjector, "take every event"},
			{api + "CONSUMER.UNPIN.RUNS_LOG." + contracts.ConsumerProjector, "hand the projection over"},
			{api + "CONSUMER.CREATE.KV_runs.*.$KV.runs.status.*", "feed the index of runs"},
			{api + "CONSUMER.MSG.NEXT.KV_runs.*", "the same"},
		}, acks(contracts.StreamLog, ">", "answer events"), acks(contracts.StreamWork, ">", "give back the leases of dead workers"), []Right{
			{"$KV.runs.status.*", "write statuses"},
			{"$KV.runs.round.>", "settle a removal against a redrive"},
			{contracts.SubjectAllScheduleDue, "have a dispatcher queue a run again that lost its work"},
			{"runs.worker.*", "ping holders"},
			{contracts.APISubject(contracts.EndpointGet), "pass on who asks for a single run"},
			{"_R_.>", "answer queries from other accounts"},
			{"_INBOX.>", "answer queries from its own"},
			{api + "STREAM.MSG.GET.RUNS_LOG", "read the head of a log, from the leader"},
			{api + "STREAM.MSG.GET.RUNS_WORK", "find what is stranded in a queue"},
			{api + "STREAM.MSG.GET.KV_runs", "read keys before removing them"},
			{api + "DIRECT.GET.RUNS_LOG", "read logs"},
			{api + "DIRECT.GET.RUNS_LOG." + contracts.SubjectAllEvents, "read the last event of a log"},
			{api + "DIRECT.GET.RUNS_WORK", "tell the age of a queue, and see whether runs have their work messages"},
			{api + "DIRECT.GET.RUNS_WORK." + contracts.SubjectAllWork, "the same of one run"},
			{api + "DIRECT.GET.RUNS_SCHEDULE", "see whether runs have their schedules"},
			{api + "DIRECT.GET.KV_runs", "read statuses"},
			{api + "DIRECT.GET.KV_runs.$KV.runs.>", "the same"},
			{api + "STREAM.MSG.DELETE.RUNS_WORK", "free a stranded message"},
			{api + "STREAM.PURGE.RUNS_LOG", "remove a run after its retention"},
			{api + "STREAM.PURGE.KV_runs", "the same; and old checkpoints"},
		}),
		Subscribe: []Right{
			inbox(key),
			{contracts.SubjectAPI + ".*", "queries"},
			{contracts.SubjectAPI + ".*.*", "questions about single runs"},
			{"$SRV.>", "tell that it is there, and its counters"},
		},
	}
}

// operator may change the topology, and by that do anything: its key is kept
// as one keeps root's.
func operator(key string) User {
	return User{
		Name: RoleOperator, Key: key, What: "a person who creates the topology, looks for faults, makes backups",
		Publish: []Right{
			{api + ">", "create, look at, back up and restore streams and consumers"},
			{"$JS.SNAPSHOT.>", "back up and restore"},
			{"$JS.FC.>", "keep pace with reading"},
			{contracts.SubjectSubmit, "submit"},
			{contracts.SubjectSubmitDirect, "the same, without the inbox's hop"},
			{contracts.SubjectAllCancel, "cancel"},
			{contracts.SubjectAllRedrive, "redrive"},
			{contracts.SubjectAllSignal, "signal"},
			{contracts.SubjectAPI + ".*", "query, and have runs swept"},
			{"$SRV.>", "read the counters of statekeepers"},
			{"runs.worker.*", "ask whether a worker lives"},
		},
		Subscribe: []Right{
			inbox(key),
			{contracts.SubjectAllEvents, "follow runs"},
			{"$JS.EVENT.>", "hear what the broker advises"},
		},
	}
}

// worker is the user of the workers of one agent set. Of the work it has that
// of its agents alone. It may append to any log: a log's subject does not name
// the agent. Those whose workers must not be trusted with one another's logs
// are tenants.
func worker(key string, set AgentSet) User {
	u := User{
		Name: RoleWorker + "-" + set.Name, Key: key, What: "executes the agents of set " + set.Name,
		Publish: []Right{
			{outside(api + "STREAM.INFO.*"), "compare the topology with what stands"},
			{outside(api + "CONSUMER.INFO.*.*"), "the same, and read the lease of its queues"},
			{outside(api + "STREAM.MSG.GET.RUNS_LOG"), "read the head of a log, from the leader"},
			{outside(api + "STREAM.MSG.GET.KV_runs"), "read a checkpoint, from the leader"},
			{api + "DIRECT.GET.RUNS_LOG", "read a log: steps, signals, conversations"},
			{api + "DIRECT.GET.RUNS_LOG." + contracts.SubjectAllEvents, "read the last event of a log"},
			{api + "DIRECT.GET.KV_runs", "read a checkpoint"},
			{contracts.SubjectAllLog, "append to run logs"},
			{"$KV.runs.checkpoint.>", "save checkpoints"},
			{"runs.worker.*", "ask the holder before taking over"},
			{"_INBOX.>", "answer those who ask what it holds"},
		},
		Subscribe: []Right{
			inbox(key),
			{"runs.worker.*", "be asked what it holds"},
		},
	}
	for _, agent := range set.Agents {
		u.Publish = append(u.Publish, Right{"$KV.agents." + agent, "register agent " + agent},
			Right{api + "DIRECT.GET.KV_agents.$KV.agents." + agent, "see whether it is registered"})
		for _, c := range queuesOf(agent) {
			u.Publish = append(u.Publish, Right{api + "CONSUMER.MSG.NEXT.RUNS_WORK." + c, "take its work"})
			u.Publish = append(u.Publish, acks(contracts.StreamWork, c, "keep, answer and give back its work")...)
		}
	}
	return u
}

// queuesOf are the consumers of an agent's work.
func queuesOf(agent string) []string {
	if agent == AnyAgent {
		return []string{"*"}
	}
	var all []string
	for _, p := range contracts.Priorities() {
		all = append(all, contracts.WorkConsumer(agent, p))
	}
	return all
}

// submits and reads are what clients may do.
func submits() []Right {
	return []Right{
		{contracts.SubjectSubmit, "submit"},
		{contracts.SubjectSubmitDirect, "the same, without the inbox's hop"},
		{contracts.SubjectAllCancel, "cancel"},
		{contracts.SubjectAllRedrive, "redrive"},
		{contracts.SubjectAllSignal, "signal"},
		{api + "DIRECT.GET.RUNS_LOG." + contracts.SubjectAllEvents, "see whether the run of an idempotency key was rejected"},
	}
}

func reads() []Right {
	return []Right{
		{contracts.APISubject(contracts.EndpointGet), "get a run"},
		{contracts.APISubject(contracts.EndpointList), "list runs"},
		{contracts.APISubject(contracts.EndpointStats), "count runs"},
		{contracts.APISubject(contracts.EndpointLoad), "see what waits and who works"},
		{api + "DIRECT.GET.RUNS_LOG", "read the history of runs"},
		{api + "DIRECT.GET.RUNS_LOG." + contracts.SubjectAllEvents, "read the last event of a run"},
		{outside(api + "STREAM.MSG.GET.RUNS_LOG"), "the same from the leader, where a replica lags"},
		{api + "DIRECT.GET.KV_agents", "list agents"},
		{outside(api + "CONSUMER.INFO.RUNS_WORK.*"), "and what waits for them"},
	}
}

func submitter(key string) User {
	return User{
		Name: RoleSubmitter, Key: key, What: "submits runs and steers them, and sees nothing of them but the last event of one whose id it knows",
		Publish: submits(), Subscribe: []Right{inbox(key)},
	}
}

func subscriber(key string) User {
	return User{
		Name: RoleSubscriber, Key: key, What: "follows and lists all runs of its tenant, and changes nothing",
		Publish:   reads(),
		Subscribe: []Right{inbox(key), {contracts.SubjectAllEvents, "follow runs"}},
	}
}

func client(key string) User {
	u := subscriber(key)
	u.Name, u.What = RoleClient, "an application that submits runs and waits for them: submitter and subscriber in one"
	u.Publish = append(submits(), slices.DeleteFunc(u.Publish, func(g Right) bool {
		return slices.ContainsFunc(submits(), func(s Right) bool { return s.Subject == g.Subject })
	})...)
	return u
}

// viewer is the user who may see one run: its events, those that were and those
// that come, and its status. Not even that there are other runs.
func viewer(key, runID string) User {
	return User{
		Name: "viewer", Key: key, What: "follows run " + runID + " alone",
		Publish: []Right{
			{api + "DIRECT.GET.RUNS_LOG." + contracts.EventsSubject(runID), "read the run's last event"},
			{window.Subject(window.KindLog, runID), "read the run's history"},
			{window.Subject(window.KindLeader, runID), "the same from the leader, where a replica lags"},
			{window.Subject(window.KindRun, runID), "get the run"},
		},
		Subscribe: []Right{inbox(key), {contracts.EventsSubject(runID), "follow the run"}},
	}
}

func system(key string) User {
	return User{
		Name: RoleSystem, Key: key, What: "the operator of the broker itself: server reports, no tenant's messages",
		Publish:   []Right{{"$SYS.REQ.>", "ask servers"}},
		Subscribe: []Right{inbox(key), {"$SYS.>", "hear servers"}},
	}
}
