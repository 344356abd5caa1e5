package security

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/security"
	"longhaul/internal/window"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/secured"
)

// arena is a broker on which something stands that attacks may go for: two runs
// with a log, one of them with its work in the hands of a worker, statuses, a
// checkpoint, an agent. Nobody but the attacker is at work, so that any change
// is the attacker's.
type arena struct {
	account  string              // that the streams are in
	operator jetstream.JetStream // sees everything
	connect  func(t *testing.T, role string, complain func(error)) *nats.Conn
	// mine and other are runs; other's work is for agent echo, and held.
	mine, other string
	token       string // of the lease on other's work
}

// attacker is somebody with a user's rights.
type attacker struct {
	*arena
	nc *nats.Conn
	js jetstream.JetStream

	mu      sync.Mutex
	refused []string // what the broker said no to
	got     string   // what was read that should not be
}

// attack is one try. do reports by a's methods what came of it; what it changes
// is seen from outside.
type attack struct {
	name  string
	roles []string
	do    func(t *testing.T, a *attacker)
	// silent: the attacker is not told; nothing comes of it all the same.
	silent bool
	// stirs: others do something meanwhile, which changes the state.
	stirs bool
	// loosen, if there is one, makes the streams take what they should not; it is
	// for the proof that the attack would be noticed.
	loosen func(t *testing.T, a *arena)
}

func (a *attacker) complain(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused = append(a.refused, err.Error())
}

// no notes an answer that says no, and answers whether there was an error.
func (a *attacker) no(err error) bool {
	if err != nil {
		a.complain(err)
	}
	return err != nil
}

// see notes what was read.
func (a *attacker) see(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = fmt.Sprintf(format, args...)
}

func (a *attacker) outcome() (refused []string, got string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.refused...), a.got
}

// publish publishes and waits until the broker has seen it.
func (a *attacker) publish(t *testing.T, m *nats.Msg) {
	t.Helper()
	if err := a.nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	if err := a.nc.FlushTimeout(5 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// ask asks on a subject and notes an answer that is no refusal.
func (a *attacker) ask(t *testing.T, subject, body string) {
	t.Helper()
	sub, err := a.nc.SubscribeSync(a.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	a.publish(t, &nats.Msg{Subject: subject, Reply: sub.Subject, Data: []byte(body)})
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		if refused, _ := a.outcome(); len(refused) > 0 {
			return
		}
		m, err := sub.NextMsg(20 * time.Millisecond)
		if err != nil {
			continue
		}
		var answer struct {
			Error *jetstream.APIError `json:"error"`
		}
		switch {
		case json.Unmarshal(m.Data, &answer) == nil && answer.Error != nil:
			a.no(answer.Error)
		case m.Header.Get("Status") != "" && len(m.Data) == 0:
			a.no(fmt.Errorf("status %s %s", m.Header.Get("Status"), m.Header.Get("Description")))
		default:
			a.see("%s answered %.80q", subject, m.Data)
		}
		return
	}
}

// listen subscribes and notes what comes while meanwhile happens.
func (a *attacker) listen(t *testing.T, subject string, meanwhile func()) {
	t.Helper()
	sub, err := a.nc.SubscribeSync(subject)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := a.nc.FlushTimeout(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	meanwhile()
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		if refused, _ := a.outcome(); len(refused) > 0 {
			break
		}
		if m, err := sub.NextMsg(20 * time.Millisecond); err == nil {
			a.see("heard on %s: %.80q", m.Subject, m.Data)
			return
		}
	}
	if m, err := sub.NextMsg(20 * time.Millisecond); err == nil {
		a.see("heard on %s in spite of all: %.80q", m.Subject, m.Data)
	}
}

// furnish puts on a broker what an arena holds. Everything is written by the
// user whose task it is.
func furnish(t *testing.T, a *arena) {
	t.Helper()
	put := func(role string, m *nats.Msg) uint64 {
		t.Helper()
		js, err := jsutil.JetStream(a.connect(t, role, func(err error) { t.Errorf("%s: %v", role, err) }))
		if err != nil {
			t.Fatal(err)
		}
		ack, err := js.PublishMsg(t.Context(), m)
		if err != nil {
			t.Fatalf("furnish %s as %s: %v", m.Subject, role, err)
		}
		return ack.Sequence
	}
	a.mine, a.other = contracts.NewRunID(), contracts.NewRunID()
	for _, id := range []string{a.mine, a.other} {
		put("dispatcher", &nats.Msg{Subject: contracts.LogSubject(id), Data: []byte(`{"run_id":"` + id + `","seq":1}`)})
		put("statekeeper", &nats.Msg{Subject: contracts.KVSubject("runs", contracts.StatusKey(id)), Data: []byte(`{"run_id":"` + id + `"}`)})
	}
	put("dispatcher", &nats.Msg{Subject: contracts.WorkSubject("echo", contracts.PriorityNormal, a.other), Data: []byte("work")})
	put("worker-mail", &nats.Msg{Subject: contracts.KVSubject("agents", "echo"), Data: []byte(`{"agent_key":"echo"}`)})
	put("worker-mail", &nats.Msg{Subject: contracts.KVSubject("runs", contracts.CheckpointKey(a.other, 1, 1)), Data: []byte(`{"secret":1}`)})

	// The owner of other's work takes it, and keeps it.
	owner := a.connect(t, "worker-mail", func(err error) { t.Errorf("worker-mail: %v", err) })
	inbox, err := owner.SubscribeSync(owner.NewInbox())
	if err == nil {
		err = owner.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.RUNS_WORK."+contracts.WorkConsumer("echo", contracts.PriorityNormal), inbox.Subject, []byte(`{"batch":1,"expires":5000000000}`))
	}
	var m *nats.Msg
	if err == nil {
		m, err = inbox.NextMsg(5 * time.Second)
	}
	if err != nil || !strings.HasPrefix(m.Reply, "$JS.ACK.") {
		t.Fatalf("take work: %v %+v", err, m)
	}
	a.token = m.Reply
	// It wants more: given back by somebody, the same would come again.
	if err := owner.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.RUNS_WORK."+contracts.WorkConsumer("echo", contracts.PriorityNormal), inbox.Subject, []byte(`{"batch":9,"expires":600000000000}`)); err != nil {
		t.Fatal(err)
	}
}

// state is all that an attack could change: every stream and consumer, how they
// are configured and what stands in them.
func (a *arena) state(t *testing.T) string {
	t.Helper()
	var all []any
	streams := a.operator.ListStreams(t.Context())
	found := make(map[string]*jetstream.StreamInfo)
	for info := range streams.Info() {
		found[info.Config.Name] = info
	}
	if err := streams.Err(); err != nil {
		t.Fatal(err)
	}
	for _, s := range jsutil.NewTopology(jsutil.TopologyOptions{}).Streams {
		info := found[s.Name]
		delete(found, s.Name)
		if info == nil {
			all = append(all, s.Name+" is gone")
			continue
		}
		all = append(all, info.Config, info.State.Msgs, info.State.Bytes, info.State.FirstSeq, info.State.LastSeq, info.State.NumDeleted)
		stream, err := a.operator.Stream(t.Context(), s.Name)
		if err != nil {
			t.Fatal(err)
		}
		list := stream.ListConsumers(t.Context())
		consumers := make(map[string]any)
		for c := range list.Info() {
			consumers[c.Name] = []any{c.Config, c.NumAckPending, c.NumRedelivered, c.NumPending}
		}
		if err := list.Err(); err != nil {
			t.Fatal(err)
		}
		all = append(all, consumers)
	}
	for name := range found {
		all = append(all, "another stream: "+name)
	}
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// settle is for how long it is looked whether something changes after all: the
// broker carries out some of what it is asked beside the answer.
const settle = 100 * time.Millisecond

// try carries out an attack as somebody and says whether it succeeded, and how
// it was refused.
func (a *arena) try(t *testing.T, role string, do func(*testing.T, *attacker), stirs bool, patience time.Duration) (success string, refused []string) {
	t.Helper()
	at := &attacker{arena: a}
	at.nc = a.connect(t, role, at.complain)
	defer at.nc.Close()
	var err error
	if at.js, err = jsutil.JetStream(at.nc); err != nil {
		t.Fatal(err)
	}
	before := a.state(t)
	do(t, at)
	_ = at.nc.FlushTimeout(time.Second) // what the broker has to say of it has come then
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		refused, got := at.outcome()
		after := a.state(t)
		switch {
		case got != "":
			return got, refused
		case after != before && !stirs:
			return firstDifference(before, after), refused
		case time.Now().After(deadline):
			return "", refused
		}
	}
}

func firstDifference(a, b string) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	from := max(0, i-60)
	return fmt.Sprintf("state changed: …%s… became …%s…", a[from:min(len(a), i+60)], b[from:min(len(b), i+60)])
}

// newArena is an arena on the files that init generates.
func newArena(t *testing.T) *arena {
	t.Helper()
	d := secured.New(t, security.Plan{AgentSets: []security.AgentSet{
		{Name: "mail", Agents: []string{"echo"}}, {Name: "web", Agents: []string{"count"}}}})
	a := &arena{account: "main", operator: d.Topology(t, "main")}
	a.queues(t)
	viewer := ""
	a.connect = func(t *testing.T, role string, complain func(error)) *nats.Conn {
		t.Helper()
		if role == "viewer" {
			return d.Connect(t, viewer, complain)
		}
		return d.Connect(t, "main-"+role, complain)
	}
	furnish(t, a)
	var err error
	if viewer, err = security.Grant(d.Dir, "main", a.mine); err != nil {
		t.Fatal(err)
	}
	d.Reload(t)
	d.Reload(t)
	keeper := a.connect(t, "statekeeper", func(err error) { t.Errorf("statekeeper: %v", err) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- window.Serve(ctx, keeper, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a
}

// newOpenArena is the same on a broker without users and walls.
func newOpenArena(t *testing.T) *arena {
	t.Helper()
	e, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	a := &arena{account: "$G", connect: func(t *testing.T, _ string, complain func(error)) *nats.Conn {
		t.Helper()
		nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: e.URL()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { complain(err) })
		return nc
	}}
	if a.operator, err = jsutil.JetStream(a.connect(t, "", func(err error) { t.Error(err) })); err != nil {
		t.Fatal(err)
	}
	if err := jsutil.EnsureTopology(t.Context(), a.operator, jsutil.NewTopology(jsutil.TopologyOptions{Storage: e.Storage()})); err != nil {
		t.Fatal(err)
	}
	a.queues(t)
	furnish(t, a)
	return a
}

// queues makes the agents' queues; a lease outlasts the test.
func (a *arena) queues(t *testing.T) {
	t.Helper()
	for _, key := range []string{"echo", "count"} {
		if err := jsutil.EnsureWorkConsumers(t.Context(), a.operator, key, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
}
