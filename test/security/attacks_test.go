package security

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
)

// Roles by what they may do.
var (
	applications = []string{"submitter", "subscriber", "client", "viewer"}
	outsiders    = []string{"submitter", "subscriber", "client", "viewer", "worker-web"} // all who are not trusted with the streams
)

// TestAttacks has every role try what is not its to do. Each try is refused, and
// nothing has changed and nothing was read.
func TestAttacks(t *testing.T) {
	a := newArena(t)
	for _, attack := range attacks() {
		t.Run(attack.name, func(t *testing.T) {
			for _, role := range attack.roles {
				success, refused := a.try(t, role, attack.do, attack.stirs, settle)
				if success != "" {
					t.Errorf("%s succeeded: %s", role, success)
				}
				if len(refused) == 0 && !attack.silent {
					t.Errorf("%s was not refused", role)
				}
			}
		})
	}
}

// TestAttacksWouldBeNoticed proves the test above: where nobody is refused
// anything, each attack succeeds, and is seen to.
func TestAttacksWouldBeNoticed(t *testing.T) {
	for _, attack := range attacks() {
		t.Run(attack.name, func(t *testing.T) {
			a := newOpenArena(t)
			do := attack.do
			if attack.loosen != nil {
				do = func(t *testing.T, at *attacker) {
					attack.loosen(t, a)
					attack.do(t, at)
				}
			}
			if success, refused := a.try(t, attack.roles[0], do, attack.stirs, 5*time.Second); success == "" {
				t.Errorf("nothing came of it; refused: %v", refused)
			}
		})
	}
}

// attacks are what none of the roles may do.
func attacks() []attack {
	return slices.Concat(headers(), publishes(), replies(), readings(), consumers(), leases())
}

// headers are those by which a submission would do more than submit.
func headers() []attack {
	var all []attack
	add := func(name string, h nats.Header, loosen func(*jetstream.StreamConfig)) {
		all = append(all, attack{name: "a submission with " + name, roles: []string{"submitter", "client"},
			do: func(t *testing.T, a *attacker) {
				_, err := a.js.PublishMsg(t.Context(), &nats.Msg{Subject: contracts.SubjectSubmit, Header: h, Data: []byte("{}")}, jetstream.WithRetryAttempts(0))
				a.no(err)
			},
			loosen: func(t *testing.T, a *arena) {
				s, err := a.operator.Stream(t.Context(), contracts.StreamInbox)
				if err != nil {
					t.Fatal(err)
				}
				cfg := s.CachedInfo().Config
				loosen(&cfg)
				if _, err := a.operator.UpdateStream(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
			}})
	}
	add("rollup of all", nats.Header{"Nats-Rollup": {"all"}}, func(c *jetstream.StreamConfig) { c.AllowRollup = true })
	add("rollup of its subject", nats.Header{"Nats-Rollup": {"sub"}}, func(c *jetstream.StreamConfig) { c.AllowRollup = true })
	add("a time to live", nats.Header{"Nats-TTL": {"1s"}}, func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true })
	add("a schedule", nats.Header{"Nats-Schedule": {"@at " + time.Now().Add(time.Hour).Format(time.RFC3339)}, "Nats-Schedule-Target": {"runs.x.cancel"}},
		func(c *jetstream.StreamConfig) { c.AllowMsgSchedules, c.Discard = true, jetstream.DiscardOld })
	add("a part of a batch", nats.Header{"Nats-Batch-Id": {"b"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}},
		func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = true })
	// To be told a sequence would be to be told what others submit; the stream
	// compares, and stores nothing.
	for _, h := range []string{"Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence"} {
		all = append(all, attack{name: "a submission with " + h, roles: []string{"submitter", "client"}, do: func(t *testing.T, a *attacker) {
			_, err := a.js.PublishMsg(t.Context(), &nats.Msg{Subject: contracts.SubjectSubmit, Header: nats.Header{h: {"7"}}, Data: []byte("{}")}, jetstream.WithRetryAttempts(0))
			a.no(err)
		}, loosen: func(t *testing.T, a *arena) { // the seventh is the one to guess
			for range 7 {
				if _, err := a.operator.Publish(t.Context(), contracts.SubjectSubmit, []byte("{}")); err != nil {
					t.Fatal(err)
				}
			}
		}})
	}
	return all
}

// publishes go to subjects that are others' to write.
func publishes() []attack {
	var all []attack
	add := func(what string, roles []string, subject func(a *attacker) string, body string) {
		all = append(all, attack{name: "publish " + what, roles: roles, do: func(t *testing.T, a *attacker) {
			a.publish(t, &nats.Msg{Subject: subject(a), Data: []byte(body)})
		}})
	}
	others := append([]string{"worker-web", "dispatcher", "statekeeper"}, applications...)
	all = append(all, attack{name: "publish an event that nobody committed", roles: append([]string{"operator"}, others...), do: func(t *testing.T, a *attacker) {
		// Seen by whoever follows: it changes no stream, so a follower looks.
		follower := a.connect(t, "subscriber", func(error) {})
		sub, err := follower.SubscribeSync(contracts.EventsSubject(a.other))
		if err == nil {
			err = follower.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		a.publish(t, &nats.Msg{Subject: contracts.EventsSubject(a.other), Data: []byte("forged")})
		if m, err := sub.NextMsg(300 * time.Millisecond); err == nil {
			a.see("a follower was shown %q", m.Data)
		}
	}})
	log := func(a *attacker) string { return contracts.LogSubject(a.other) }
	add("to a run log", append([]string{"operator", "statekeeper"}, applications...), log, "forged")
	status := func(a *attacker) string { return contracts.KVSubject("runs", contracts.StatusKey(a.other)) }
	add("a status", append([]string{"operator", "dispatcher", "worker-web"}, applications...), status, `{"status":"succeeded"}`)
	add("an idempotency key", append([]string{"operator", "statekeeper", "worker-web"}, applications...),
		func(*attacker) string { return contracts.KVSubject("runs", contracts.IdempotencyKey("k")) }, contracts.NewRunID())
	add("a checkpoint", append([]string{"operator", "dispatcher", "statekeeper"}, applications...),
		func(a *attacker) string { return contracts.KVSubject("runs", contracts.CheckpointKey(a.other, 1, 1)) }, "{}")
	add("an agent that is not its own", append([]string{"operator", "dispatcher", "statekeeper", "worker-web"}, applications...),
		func(*attacker) string { return contracts.KVSubject("agents", "echo") }, "{}")
	add("work", append([]string{"operator", "statekeeper", "worker-web", "worker-mail"}, applications...),
		func(a *attacker) string { return contracts.WorkSubject("echo", contracts.PriorityHigh, a.mine) }, "forged")
	add("a schedule", append([]string{"operator", "statekeeper"}, outsiders...), func(a *attacker) string { return contracts.ScheduleAtSubject(a.mine) }, "x")
	add("that a run is due", append([]string{"operator", "dispatcher"}, outsiders...), func(a *attacker) string { return contracts.ScheduleDueSubject(a.mine) }, "x")
	for _, command := range []string{"cancel", "redrive", "signal"} {
		add("a "+command, []string{"subscriber", "viewer", "worker-web", "statekeeper"}, func(a *attacker) string { return "runs." + a.other + "." + command }, "{}")
	}
	add("a submission", []string{"subscriber", "viewer", "worker-web", "statekeeper", "dispatcher"}, func(*attacker) string { return contracts.SubjectSubmit }, "{}")
	for what, of := range map[string][2]string{
		"STREAM.DELETE.RUNS_LOG": {"", "statekeeper"}, "STREAM.PURGE.RUNS_LOG": {"{}", ""}, "STREAM.PURGE.RUNS_INBOX": {"{}", "statekeeper"},
		"STREAM.MSG.DELETE.RUNS_LOG": {`{"seq":1}`, "statekeeper"}, "STREAM.CREATE.EXTRA": {`{"name":"EXTRA","subjects":["extra"],"storage":"memory","num_replicas":1,"retention":"limits"}`, "statekeeper"},
		"CONSUMER.DELETE.RUNS_WORK.work-count-high": {"", "statekeeper"}, "CONSUMER.PAUSE.RUNS_WORK.work-count-high": {`{"pause_until":"2099-01-01T00:00:00Z"}`, "statekeeper"},
	} {
		roles := append([]string{"dispatcher"}, outsiders...)
		if of[1] != "" {
			roles = append(roles, of[1])
		}
		all = append(all, attack{name: "ask for " + what, roles: roles, do: func(t *testing.T, a *attacker) {
			a.publish(t, &nats.Msg{Subject: "$JS.API." + what, Reply: a.nc.NewInbox(), Data: []byte(of[0])})
		}})
	}
	all = append(all, attack{name: "ask for STREAM.UPDATE.RUNS_LOG", roles: append([]string{"dispatcher", "statekeeper"}, outsiders...), do: func(t *testing.T, a *attacker) {
		s, err := a.operator.Stream(t.Context(), contracts.StreamLog)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.AllowRollup, cfg.Description = true, "taken"
		body, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a.publish(t, &nats.Msg{Subject: "$JS.API.STREAM.UPDATE.RUNS_LOG", Reply: a.nc.NewInbox(), Data: body})
	}})
	return all
}

// replies are requests that anybody may make, whose answer is to do harm: the
// broker sends it where the asker says.
func replies() []attack {
	var all []attack
	// What each may ask for, and has an answer.
	allowed := map[string]func(a *attacker) string{
		"submitter":  func(a *attacker) string { return "$JS.API.DIRECT.GET.RUNS_LOG." + contracts.EventsSubject(a.mine) },
		"subscriber": func(a *attacker) string { return "$JS.API.DIRECT.GET.RUNS_LOG." + contracts.EventsSubject(a.mine) },
		"viewer":     func(a *attacker) string { return "$JS.API.DIRECT.GET.RUNS_LOG." + contracts.EventsSubject(a.mine) },
		"worker-web": func(a *attacker) string { return "$JS.API.DIRECT.GET.RUNS_LOG." + contracts.EventsSubject(a.mine) },
	}
	for what, reply := range map[string]func(a *attacker) string{
		"a run log":     func(a *attacker) string { return contracts.LogSubject(a.other) },
		"a status":      func(a *attacker) string { return contracts.KVSubject("runs", contracts.StatusKey(a.other)) },
		"work":          func(a *attacker) string { return contracts.WorkSubject("echo", contracts.PriorityHigh, a.mine) },
		"a schedule":    func(a *attacker) string { return contracts.ScheduleDueSubject(a.mine) },
		"a submission":  func(*attacker) string { return contracts.SubjectSubmit },
		"another agent": func(*attacker) string { return "$KV.agents.echo" },
		"a checkpoint":  func(a *attacker) string { return contracts.KVSubject("runs", contracts.CheckpointKey(a.other, 1, 1)) },
		"a cancel":      func(a *attacker) string { return contracts.CancelSubject(a.other) },
	} {
		for role, subject := range allowed {
			if role == "worker-web" && (what == "a run log" || what == "a checkpoint") || role == "submitter" && (what == "a submission" || what == "a cancel") {
				continue // which it may write itself
			}
			all = append(all, attack{name: "an answer that becomes " + what, roles: []string{role}, do: func(t *testing.T, a *attacker) {
				a.publish(t, &nats.Msg{Subject: subject(a), Reply: reply(a)})
			}, silent: true})
		}
	}
	// "No such message" has no body, which is what the API wants that deletes a stream.
	all = append(all, attack{name: "an answer that deletes a stream", roles: outsiders, do: func(t *testing.T, a *attacker) {
		id := contracts.NewRunID() // has no log
		a.publish(t, &nats.Msg{Subject: "$JS.API.DIRECT.GET.RUNS_LOG." + contracts.EventsSubject(id), Reply: "$JS.API.STREAM.DELETE.RUNS_INBOX"})
	}, silent: true})
	all = append(all, attack{name: "an answer that is a lease's", roles: outsiders, do: func(t *testing.T, a *attacker) {
		a.publish(t, &nats.Msg{Subject: "$JS.API.DIRECT.GET.RUNS_LOG." + contracts.EventsSubject(contracts.NewRunID()), Reply: a.token})
	}, loosen: func(t *testing.T, a *arena) { // the broker itself never takes such a reply; a plain acknowledgement stands in
		if err := a.operator.Conn().Publish(a.token, nil); err != nil {
			t.Fatal(err)
		}
	}})
	return all
}

// readings are of what is not the reader's.
func readings() []attack {
	var all []attack
	asks := func(what string, roles []string, subject, body func(a *attacker) string) {
		all = append(all, attack{name: "read " + what, roles: roles, do: func(t *testing.T, a *attacker) {
			a.ask(t, subject(a), body(a))
		}})
	}
	is := func(s string) func(*attacker) string { return func(*attacker) string { return s } }
	first := is(`{"seq":1}`)
	nobody := is("")
	for _, stream := range []string{"RUNS_LOG", "RUNS_WORK", "KV_runs"} {
		of := map[string][]string{"RUNS_LOG": {"submitter", "viewer"}, "RUNS_WORK": append([]string{"dispatcher"}, outsiders...),
			"KV_runs": append([]string{"dispatcher"}, applications...)}[stream]
		from := first
		if stream == "RUNS_LOG" { // through whatever the name is mapped to
			from = func(a *attacker) string { return `{"last_by_subj":"` + contracts.EventsSubject(a.other) + `"}` }
		}
		asks("any message of "+stream, of, is("$JS.API.DIRECT.GET."+stream), from)
	}
	for _, stream := range []string{"RUNS_LOG", "RUNS_INBOX", "RUNS_WORK", "KV_runs", "KV_agents"} {
		of := map[string][]string{"RUNS_LOG": {"submitter", "viewer"}, "RUNS_INBOX": append([]string{"statekeeper"}, outsiders...), "RUNS_WORK": outsiders,
			"KV_runs": applications, "KV_agents": append([]string{"statekeeper"}, outsiders...)}[stream]
		body := first
		if stream == "RUNS_LOG" {
			body = func(a *attacker) string { return `{"last_by_subj":"` + contracts.EventsSubject(a.other) + `"}` }
		}
		all = append(all, attack{name: "read any message of " + stream + " from its leader", roles: of, do: func(t *testing.T, a *attacker) {
			a.ask(t, "$JS.API.STREAM.MSG.GET."+stream, body(a))
		}, loosen: func(t *testing.T, a *arena) {
			if stream == "RUNS_INBOX" {
				if _, err := a.operator.Publish(t.Context(), contracts.SubjectSubmit, []byte("{}")); err != nil {
					t.Fatal(err)
				}
			}
		}})
	}
	asks("the last event of another run", []string{"viewer"}, func(a *attacker) string {
		return "$JS.API.DIRECT.GET.RUNS_LOG." + contracts.EventsSubject(a.other)
	}, nobody)
	asks("a batch of another run's history", []string{"viewer", "submitter"}, is("$JS.API.DIRECT.GET.RUNS_LOG"), func(a *attacker) string {
		return `{"seq":1,"next_by_subj":"` + contracts.EventsSubject(a.other) + `","batch":10}`
	})
	asks("every run's history", []string{"viewer", "submitter"}, is("$JS.API.DIRECT.GET.RUNS_LOG"), is(`{"seq":1,"next_by_subj":"runs.*.events","batch":10}`))
	asks("the last events of all runs", []string{"viewer", "submitter"}, is("$JS.API.DIRECT.GET.RUNS_LOG"), is(`{"multi_last":["runs.*.events"]}`))
	asks("a status", append([]string{"worker-web", "dispatcher"}, applications...), func(a *attacker) string {
		return "$JS.API.DIRECT.GET.KV_runs." + contracts.KVSubject("runs", contracts.StatusKey(a.other))
	}, nobody)
	asks("a checkpoint", append([]string{"dispatcher"}, applications...), func(a *attacker) string {
		return "$JS.API.DIRECT.GET.KV_runs." + contracts.KVSubject("runs", contracts.CheckpointKey(a.other, 1, 1))
	}, nobody)
	asks("the list of streams", append([]string{"dispatcher", "statekeeper"}, outsiders...), is("$JS.API.STREAM.NAMES"), nobody)
	all = append(all, attack{name: "take work that is not its own", roles: append([]string{"dispatcher", "statekeeper"}, outsiders...), do: func(t *testing.T, a *attacker) {
		a.ask(t, "$JS.API.CONSUMER.MSG.NEXT.RUNS_WORK.work-echo-high", `{"batch":1,"no_wait":true}`)
	}, loosen: func(t *testing.T, a *arena) {
		if _, err := a.operator.Publish(t.Context(), contracts.WorkSubject("echo", contracts.PriorityHigh, a.mine), nil); err != nil {
			t.Fatal(err)
		}
	}})

	hear := func(what string, roles []string, subject func(a *attacker) string, meanwhile func(t *testing.T, a *attacker)) {
		all = append(all, attack{name: "hear " + what, roles: roles, do: func(t *testing.T, a *attacker) {
			a.listen(t, subject(a), func() { meanwhile(t, a) })
		}, stirs: true})
	}
	// Somebody else asks something, and is answered.
	asked := func(role string) func(t *testing.T, a *attacker) {
		return func(t *testing.T, a *attacker) {
			victim := a.connect(t, role, func(error) {})
			if _, err := victim.Request("$JS.API.DIRECT.GET.RUNS_LOG."+contracts.EventsSubject(a.mine), nil, 5*time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, victim := range []string{"client", "dispatcher"} {
		hear("the answers to "+victim, append([]string{"operator", "statekeeper"}, outsiders...), is("_INBOX.>"), asked(victim))
		hear("everything, "+victim+"'s answers too", append([]string{"operator", "statekeeper"}, outsiders...), is(">"), asked(victim))
	}
	appended := func(t *testing.T, a *attacker) {
		if _, err := a.connect(t, "dispatcher", func(error) {}).Request(contracts.LogSubject(a.other), []byte("{}"), 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	hear("the events of another run", []string{"viewer", "submitter", "worker-web", "dispatcher", "statekeeper"},
		func(a *attacker) string { return contracts.EventsSubject(a.other) }, appended)
	hear("the events of all runs", []string{"viewer", "submitter", "worker-web", "dispatcher", "statekeeper"}, is(contracts.SubjectAllEvents), appended)
	hear("what is appended", append([]string{"operator", "statekeeper", "dispatcher"}, outsiders...), is(contracts.SubjectAllLog), appended)
	hear("what others submit", append([]string{"operator", "statekeeper", "dispatcher"}, outsiders...), is(contracts.SubjectSubmit), func(t *testing.T, a *attacker) {
		if _, err := a.connect(t, "client", func(error) {}).Request(contracts.SubjectSubmit, []byte("{}"), 5*time.Second); err != nil {
			t.Fatal(err)
		}
	})
	hear("what is asked of dispatchers", append([]string{"operator", "statekeeper"}, outsiders...), is(contracts.SubjectSubmitDirect), func(t *testing.T, a *attacker) {
		if err := a.connect(t, "client", func(error) {}).Publish(contracts.SubjectSubmitDirect, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	})
	hear("what is asked of workers", append([]string{"operator", "statekeeper", "dispatcher"}, applications...), is("runs.worker.*"), func(t *testing.T, a *attacker) {
		if err := a.connect(t, "dispatcher", func(error) {}).Publish("runs.worker.w-1", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	})
	return all
}

// consumers would have the broker read, and write, for the attacker.
func consumers() []attack {
	var all []attack
	roles := append([]string{"dispatcher"}, outsiders...)
	for name, body := range map[string]string{
		"that is unfiltered":             `{"stream_name":"RUNS_LOG","config":{"ack_policy":"none","deliver_policy":"all","inactive_threshold":60000000000}}`,
		"that delivers to a status":      `{"stream_name":"RUNS_LOG","config":{"ack_policy":"none","deliver_policy":"all","deliver_subject":"$KV.runs.status.x"}}`,
		"that delivers to another inbox": `{"stream_name":"RUNS_LOG","config":{"ack_policy":"none","deliver_policy":"all","deliver_subject":"_INBOX.x.y"}}`,
	} {
		all = append(all, attack{name: "a consumer " + name, roles: append([]string{"statekeeper"}, roles...), do: func(t *testing.T, a *attacker) {
			a.publish(t, &nats.Msg{Subject: "$JS.API.CONSUMER.CREATE.RUNS_LOG.spy", Reply: a.nc.NewInbox(), Data: []byte(strings.Replace(body, `"config":{`, `"config":{"name":"spy",`, 1))})
		}})
	}
	for _, form := range []string{"CONSUMER.CREATE.RUNS_LOG.spy.%s", "CONSUMER.CREATE.RUNS_LOG", "CONSUMER.DURABLE.CREATE.RUNS_LOG.spy"} {
		all = append(all, attack{name: "a consumer with a foreign deliver subject by " + strings.TrimSuffix(form, ".%s"), roles: append([]string{"statekeeper"}, roles...), do: func(t *testing.T, a *attacker) {
			subject, filter := form, ""
			if strings.Contains(form, "%s") {
				subject, filter = fmt.Sprintf(form, contracts.EventsSubject(a.mine)), contracts.EventsSubject(a.mine)
			}
			config := `"ack_policy":"none","deliver_policy":"all","deliver_subject":"` + contracts.KVSubject("runs", contracts.StatusKey(a.other)) + `"`
			switch {
			case filter != "":
				config += `,"name":"spy","filter_subject":"` + filter + `"`
			case strings.Contains(form, "DURABLE"):
				config += `,"durable_name":"spy"`
			}
			a.publish(t, &nats.Msg{Subject: "$JS.API." + subject, Reply: a.nc.NewInbox(), Data: []byte(`{"stream_name":"RUNS_LOG","config":{` + config + `}}`)})
		}})
	}
	// A queue of its own may not be made to deliver elsewhere either.
	all = append(all, attack{name: "a queue of one's own that delivers to a status", roles: []string{"worker-web"}, do: func(t *testing.T, a *attacker) {
		a.publish(t, &nats.Msg{Subject: "$JS.API.CONSUMER.CREATE.RUNS_WORK.mine.runs.work.other.high.*", Reply: a.nc.NewInbox(), Data: []byte(
			`{"stream_name":"RUNS_WORK","config":{"name":"mine","ack_policy":"explicit","filter_subject":"runs.work.other.high.*","deliver_subject":"$KV.runs.status.x"}}`)})
	}})
	return all
}

// leases are on work that is not the attacker's.
func leases() []attack {
	var all []attack
	roles := append([]string{"dispatcher", "operator"}, outsiders...)
	for word, body := range map[string]string{"acknowledge": "+ACK", "give up": "+TERM", "give back": "-NAK"} {
		for _, form := range []string{"short", "long"} {
			all = append(all, attack{name: word + " work that is not its own, by the " + form + " form", roles: roles, do: func(t *testing.T, a *attacker) {
				token := a.token
				if form == "long" { // $JS.ACK.<domain>.<hash of the account>.<stream> and so on
					token = strings.Replace(token, "$JS.ACK.", "$JS.ACK._."+hashOf(a.account)+".", 1)
				}
				a.publish(t, &nats.Msg{Subject: token, Data: []byte(body)})
			}})
		}
	}
	return all
}

// hashOf is how the broker names an account in ack subjects (getHash in its events.go).
func hashOf(account string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(account))
	name := make([]byte, 8)
	for i := range name {
		name[i] = digits[sum[i]%62]
	}
	return string(name)
}
