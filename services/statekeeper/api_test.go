package statekeeper

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

// TestGetNeverLags: each append is seen by a get that comes after it, whatever
// the projector is doing.
func TestGetNeverLags(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	startKeeper(t, b, Config{}, withWindow(time.Second)) // a projector that is always late
	p := newPlayer(t, b)
	awaitAPI(t, b)
	head, id := p.submit(contracts.Submission{Metadata: map[string]string{"a": "b"}})
	expect := func(want contracts.Status) contracts.GetResponse {
		t.Helper()
		got, err := ask[contracts.GetResponse](t, b.NC, contracts.EndpointGet, contracts.GetRequest{RunID: id})
		if err != nil {
			t.Fatal(err)
		}
		if got.Run.Status != want || got.Run.Seq != head.Seq || got.Run.Metadata["a"] != "b" {
			t.Fatalf("got %+v, want %s at seq %d", got.Run, want, head.Seq)
		}
		return got
	}
	expect(contracts.StatusPending)
	head = p.next(head, id, started("w-1", ""))
	expect(contracts.StatusRunning)
	for range 5 {
		head = p.next(head, id, delta("x"))
	}
	if got := expect(contracts.StatusRunning); got.Result != nil {
		t.Errorf("a running run has the result %s", got.Result)
	}
	head = p.next(head, id, succeeded())
	var result contracts.Succeeded
	got := expect(contracts.StatusSucceeded)
	if err := json.Unmarshal(got.Result, &result); err != nil || string(result.FinalOutput) != `{"n":1}` {
		t.Errorf("result %s, %v", got.Result, err)
	}
	// And with a record that somebody has spoilt.
	p.record(head)
	if _, err := b.JS.Publish(t.Context(), statusSubject(id), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	expect(contracts.StatusSucceeded)
}

// awaitAPI waits until somebody serves the API and has its index.
func awaitAPI(t testing.TB, b *jstest.Broker) {
	t.Helper()
	waitFor(t, "the API", func() (bool, string) {
		m, err := b.NC.Request(contracts.APISubject(contracts.EndpointStats), nil, time.Second)
		if err != nil {
			return false, err.Error()
		}
		return m.Header.Get("Nats-Service-Error") == "", m.Header.Get("Nats-Service-Error")
	})
}

func TestRefusesBadRequests(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	startKeeper(t, b, Config{})
	awaitAPI(t, b)
	for _, c := range []struct{ endpoint, request, want string }{
		{"get", `{"run_id":"nope"}`, "400 run_id: must be a UUID"},
		{"get", ``, "400 run_id: is required"},
		{"get", `{"run_id":"` + contracts.NewRunID() + `"}`, "404 run"},
		{"get", `{"run_id":7}`, "400 run_id: must be a string, not 7"},
		{"get", `{"runid":"x","run":1}`, "400 3 faults: run_id: is required; runid: is no field here; there are run_id; run: is no field"},
		{"get", `[]`, "400 must be an object, not an array"},
		{"get", `{"run_id":"x"`, "400 is not JSON"},
		{"list", `{"limit":100000}`, "400 limit: must be a whole number from 0 to 1000"},
		{"list", `{"limit":-1,"cursor":"xx","status":["done"],"agent_key":"A B","color":"red"}`, "400 5 faults: limit: must be a whole number from 0 to 1000, not -1; status[0]: must be a status"},
		{"list", `{"cursor":"AAAA"}`, "400 cursor: must be the cursor of the page before"},
		{"list", `{"created_after":"yesterday"}`, "400 created_after: must be a time"},
		{"list", `{"limit":1} {}`, "400 is not JSON"},
		{"list", `{"limit":1,"limit":2}`, "400 limit: is given twice"},
		{"list", "\xff\xfe", "400 is not JSON"},
		{"stats", `{"x":1}`, "400 the request must be an empty JSON object"},
		{"list", `{"agent_key":"` + strings.Repeat("a", 300_000) + `"}`, "400 must be at most"},
	} {
		_, err := ask[json.RawMessage](t, b.NC, c.endpoint, []byte(c.request))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s %.80s: %v, want %s…", c.endpoint, c.request, err, c.want)
		}
	}
}

// TestSaysThatItLoads: without an index, lists are refused for now, gets are not.
func TestSaysThatItLoads(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	awaitAPI(t, b)
	k.feed.loaded.Store(nil)
	if _, err := ask[contracts.ListResponse](t, b.NC, contracts.EndpointList, contracts.ListRequest{}); err == nil || !strings.HasPrefix(err.Error(), "503 ") {
		t.Errorf("list: %v, want 503", err)
	}
	p := newPlayer(t, b)
	_, id := p.submit(contracts.Submission{})
	if _, err := ask[contracts.GetResponse](t, b.NC, contracts.EndpointGet, contracts.GetRequest{RunID: id}); err != nil {
		t.Errorf("get: %v", err)
	}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	one, two := startKeeper(t, b, Config{Version: "1.2.3"}), startKeeper(t, b, Config{Version: "1.2.3"})
	one.ready(t)
	two.ready(t)
	awaitAPI(t, b)
	waitFor(t, "both instances to answer a discovery", func() (bool, string) {
		inbox := b.NC.NewRespInbox()
		sub, err := b.NC.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sub.Unsubscribe() }()
		if err := b.NC.PublishRequest("$SRV.INFO."+contracts.ServiceName, inbox, nil); err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; n < 2; n++ {
			m, err := sub.NextMsg(200 * time.Millisecond)
			if err != nil {
				return false, fmt.Sprintf("%d answers", n)
			}
			var info micro.Info
			if err := json.Unmarshal(m.Data, &info); err != nil || info.Version != "1.2.3" || len(info.Endpoints) != 2*apiLanes+3 {
				t.Fatalf("%s: %v", m.Data, err)
			}
			for _, e := range info.Endpoints {
				if e.Subject != contracts.APISubject(e.Name) || e.QueueGroup != apiQueue {
					t.Errorf("endpoint %+v", e)
				}
			}
		}
		return true, ""
	})
	// Replicas share: one request, one answer.
	sub, err := b.NC.SubscribeSync(b.NC.NewRespInbox())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := b.NC.PublishRequest(contracts.APISubject(contracts.EndpointStats), sub.Subject, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.NextMsg(200 * time.Millisecond); err == nil {
		t.Errorf("a second answer: %s", m.Data)
	}
}

// What the service says of itself is what was asked of it: every request is
// counted with its errors and the time that it took.
func TestServiceStats(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	awaitAPI(t, b)
	id := p.short(contracts.Submission{})
	const good, bad = 30, 20
	var asking sync.WaitGroup
	for i := range good + bad {
		asking.Go(func() {
			request := contracts.GetRequest{RunID: id}
			if i < bad {
				request.RunID = contracts.NewRunID()
			}
			if _, err := ask[contracts.GetResponse](t, b.NC, contracts.EndpointGet, request); (err != nil) != (i < bad) {
				t.Errorf("get %d: %v", i, err)
			}
		})
	}
	asking.Wait()
	waitFor(t, "the stats to have all of them", func() (bool, string) {
		m, err := b.NC.Request("$SRV.STATS."+contracts.ServiceName, nil, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var stats micro.Stats
		if err := json.Unmarshal(m.Data, &stats); err != nil {
			t.Fatal(err)
		}
		var sum micro.EndpointStats
		for _, e := range stats.Endpoints {
			if e.Name == contracts.EndpointGet {
				sum.NumRequests, sum.NumErrors = sum.NumRequests+e.NumRequests, sum.NumErrors+e.NumErrors
				sum.ProcessingTime += e.ProcessingTime
			}
		}
		// A request is two questions to the broker: never less than 20 µs.
		return sum.NumRequests == good+bad && sum.NumErrors == bad && sum.ProcessingTime > (good+bad)*20*time.Microsecond, fmt.Sprintf("%+v", sum)
	})
	waitFor(t, "the instance to have counted the run", func() (bool, string) {
		s := k.Stats()
		return s.Events == 3 && s.Writes > 0, fmt.Sprintf("%+v", s)
	})
}

// Lists that take long keep nobody from a get.
func TestGetBesideSlowLists(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	awaitAPI(t, b)
	head, id := p.submit(contracts.Submission{})
	p.record(head)
	x := k.feed.current()
	x.mu.Lock() // what a list has to wait for
	defer x.mu.Unlock()
	for range 3 * apiLanes {
		if err := b.NC.PublishRequest(contracts.APISubject(contracts.EndpointList), b.NC.NewRespInbox(), nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 * apiLanes {
		if _, err := ask[contracts.GetResponse](t, b.NC, contracts.EndpointGet, contracts.GetRequest{RunID: id}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListAndStats(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	var ids []string
	for i := range 30 {
		s := contracts.Submission{AgentKey: "echo", Metadata: map[string]string{"user": fmt.Sprintf("u%d", i%3)}}
		if i%2 == 1 {
			s.AgentKey, s.ConversationID = "count", "c-1"
		}
		head, id := p.submit(s)
		if i%5 == 0 {
			head = p.next(head, id, started("w-1", ""))
		}
		if i%10 == 0 {
			p.next(head, id, succeeded())
		}
		ids = append(ids, id)
	}
	waitAcked(t, b, 30)
	waitFor(t, "the index to hold all", func() (bool, string) {
		s := k.feed.current().stats()
		return s.Total == 30 && s.ByStatus[contracts.StatusSucceeded] == 3 && s.ByStatus[contracts.StatusRunning] == 3, fmt.Sprint(s)
	})
	stats, err := ask[contracts.StatsResponse](t, b.NC, contracts.EndpointStats, []byte{})
	if err != nil || stats.Total != 30 || stats.ByStatus[contracts.StatusPending] != 24 || stats.ByAgent["echo"][contracts.StatusSucceeded] != 3 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	for _, c := range []struct {
		q    contracts.ListRequest
		want int
	}{
		{contracts.ListRequest{}, 30},
		{contracts.ListRequest{AgentKey: "echo"}, 15},
		{contracts.ListRequest{ConversationID: "c-1", Metadata: map[string]string{"user": "u1"}}, 5},
		{contracts.ListRequest{Status: []contracts.Status{contracts.StatusSucceeded, contracts.StatusRunning}}, 6},
		{contracts.ListRequest{Status: []contracts.Status{contracts.StatusFailed}}, 0},
		{contracts.ListRequest{Metadata: map[string]string{"user": "u9"}}, 0},
	} {
		c.q.Limit = 4
		got := listAll(t, b, c.q, nil)
		if len(got) != c.want || !slices.IsSortedFunc(got, func(a, b contracts.StatusRecord) int { return b.CreatedAt.Compare(a.CreatedAt) }) {
			t.Errorf("%+v: %d runs, want %d, newest first", c.q, len(got), c.want)
		}
	}
	// New runs arrive between the pages: the old ones come all the same, each once.
	got := listAll(t, b, contracts.ListRequest{Limit: 3}, func() { p.record(first(p.submit(contracts.Submission{}))) })
	seen := make(map[string]int)
	for _, r := range got {
		seen[r.RunID]++
	}
	for _, id := range ids {
		if seen[id] != 1 {
			t.Errorf("run %s was listed %d times", id, seen[id])
		}
	}
}

// TestFullPages: where records fill a page to the last byte, the answer goes
// through with all that stands around them.
func TestFullPages(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{}, idle)
	awaitAPI(t, b)
	at := time.Now().UTC().Truncate(time.Second).Add(123456789)
	rec := contracts.StatusRecord{
		Position:  contracts.Position{AgentKey: "echo", Priority: contracts.PriorityNormal, Status: contracts.StatusSucceeded, MaxAttempts: 1},
		CreatedAt: at, UpdatedAt: at, FinishedAt: at, Seq: 3, LogSequence: 3, RunID: contracts.NewRunID(),
	}
	small, err := contracts.Encode(rec)
	if err != nil {
		t.Fatal(err)
	}
	const onPage = 510 // into which a page's room can be divided: 1 MiB without 4 KiB
	room := (1<<20 - headerRoom) / onPage
	if room*onPage != 1<<20-headerRoom {
		t.Fatal("records of that size leave room")
	}
	fill := strings.Repeat("y", room-1-len(small)-len(`"metadata":{"a":"","b":""},`))
	rec.Metadata = map[string]string{"a": fill[:contracts.MaxMetadataValue], "b": fill[contracts.MaxMetadataValue:]}
	const runs = 2*onPage + 1
	for range runs {
		rec.RunID = contracts.NewRunID()
		data, err := contracts.Encode(rec)
		if err != nil || len(data) != room-1 {
			t.Fatalf("record of %d bytes, want %d; %v", len(data), room-1, err)
		}
		if _, err := b.JS.PublishAsync(statusSubject(rec.RunID), data); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the index to hold all", func() (bool, string) { return k.feed.current().stats().Total == runs, "" })
	if got := listAll(t, b, contracts.ListRequest{Limit: 1000}, nil); len(got) != runs {
		t.Errorf("%d runs, want %d", len(got), runs)
	}
}

// TestListsPastOddRecords: what the bucket holds is looked at once more, since
// the index may be behind it.
func TestListsPastOddRecords(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	head, good := p.submit(contracts.Submission{AgentKey: "echo"})
	p.record(head)
	awaitAPI(t, b)
	m, err := b.JS.Stream(t.Context(), contracts.StreamRuns)
	if err != nil {
		t.Fatal(err)
	}
	record, err := m.GetLastMsgForSubject(t.Context(), statusSubject(good))
	if err != nil {
		t.Fatal(err)
	}
	pending := contracts.StatusRecord{Position: contracts.Position{AgentKey: "echo", Status: contracts.StatusPending}, CreatedAt: time.Now()}
	marks := 0
	for name, odd := range map[string]nats.Msg{
		"garbage":              {Data: []byte("garbage")},
		"cut off":              {Data: record.Data[:len(record.Data)-1]},
		"another run's":        {Data: record.Data},
		"deleted":              {Header: nats.Header{kvOperation: {"DEL"}}},
		"of another status":    {},
		"error of no kind":     {},
		"time of no kind":      {},
		"not there any more":   {},
		"deleted, with a body": {Header: nats.Header{kvOperation: {"DEL"}}},
	} {
		id := contracts.NewRunID()
		own := bytes.ReplaceAll(record.Data, []byte(good), []byte(id))
		switch name {
		case "deleted, with a body":
			odd.Data = own
		case "error of no kind":
			odd.Data = bytes.Replace(own, []byte(`{"run_id"`), []byte(`{"error":"x","run_id"`), 1)
		case "time of no kind":
			odd.Data = bytes.Replace(own, []byte(`"updated_at":"`), []byte(`"updated_at":"soon`), 1)
		case "of another status":
			odd.Data = bytes.Replace(own, []byte(`"pending"`), []byte(`"running"`), 1)
		}
		if odd.Subject = statusSubject(id); name != "not there any more" {
			if _, err := b.JS.PublishMsg(t.Context(), &odd); err != nil {
				t.Fatal(err)
			}
			p.record(first(p.submit(contracts.Submission{AgentKey: "mark"}))) // seen behind it by the index
			marks++
			waitFor(t, "the index to have seen it", func() (bool, string) {
				s := k.feed.current().stats()
				return s.ByAgent["mark"][contracts.StatusPending] == marks, fmt.Sprint(s)
			})
		}
		k.feed.current().set(uuid.MustParse(id), pending, 0)
		got := listAll(t, b, contracts.ListRequest{AgentKey: "echo", Status: []contracts.Status{contracts.StatusPending}}, nil)
		if len(got) != 1 || got[0].RunID != good {
			t.Errorf("%s: listed are %+v, want run %s alone", name, got, good)
		}
		k.feed.current().set(uuid.MustParse(id), contracts.StatusRecord{}, 0)
	}
}

// listAll lists by page, doing something between the pages.
func listAll(t testing.TB, b *jstest.Broker, q contracts.ListRequest, between func()) []contracts.StatusRecord {
	t.Helper()
	var all []contracts.StatusRecord
	for {
		page, err := ask[contracts.ListResponse](t, b.NC, contracts.EndpointList, q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Runs...)
		if q.Cursor = page.Cursor; q.Cursor == "" {
			return all
		}
		if between != nil {
			between()
		}
	}
}

// TestLargeAnswers: a page that the broker would not carry is a shorter page,
// and a result that does not fit is told of.
func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	awaitAPI(t, b)
	meta := make(map[string]string)
	for i := range contracts.MaxMetadata {
		meta[fmt.Sprint(i)] = strings.Repeat("x", contracts.MaxMetadataValue)
	}
	for range 40 { // 2.6 MB
		p.submit(contracts.Submission{Metadata: meta})
	}
	waitFor(t, "the index to hold all", func() (bool, string) { return k.feed.current().stats().Total == 40, "" })
	if got := listAll(t, b, contracts.ListRequest{Limit: 1000}, nil); len(got) != 40 {
		t.Errorf("%d runs, want 40", len(got))
	}
	head, id := p.submit(contracts.Submission{Metadata: meta})
	head = p.next(head, id, started("w-1", ""))
	output, err := json.Marshal(strings.Repeat("y", 1_040_000))
	if err != nil {
		t.Fatal(err)
	}
	p.next(head, id, contracts.Draft{Type: contracts.TypeSucceeded, Payload: contracts.Succeeded{FinalOutput: output}})
	_, err = ask[contracts.GetResponse](t, b.NC, contracts.EndpointGet, contracts.GetRequest{RunID: id})
	if err == nil || !strings.HasPrefix(err.Error(), "413 ") {
		t.Errorf("get: %v, want 413", err)
	}
}
