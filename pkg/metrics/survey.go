package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

const (
	// surveyEvery is for how long a survey is good, so that scrapes, however many,
	// cost the broker a few requests a second at most.
	surveyEvery = 5 * time.Second
	// surveyWait bounds a survey; a scraper waits for it.
	surveyWait = 3 * time.Second
)

// Survey asks the broker what waits and for how long, when somebody wants to
// know. It needs no projection, so that it tells the truth about one that does
// not keep up. Every instance finds the same.
type Survey struct {
	// Every is for how long a survey is good; surveyEvery but in tests.
	Every time.Duration

	js     jetstream.JetStream
	logger *slog.Logger
	taken  time.Time // the last one

	waiting, leased, oldest, paused, inbox, lag, lagAge, stored, storable *prometheus.GaugeVec
}

func newSurvey(s *Set, js jetstream.JetStream, logger *slog.Logger) *Survey {
	return &Survey{
		Every: surveyEvery, js: js, logger: logger,
		waiting:  s.Gauge("queue_waiting_runs", "Runs in a queue that no worker has been handed yet.", "agent_key", "priority"),
		leased:   s.Gauge("queue_leased_runs", "Runs of a queue that a worker has, or that wait for their retry.", "agent_key", "priority"),
		oldest:   s.Gauge("queue_oldest_seconds", "Age of the oldest run that no worker has been handed yet.", "agent_key", "priority"),
		paused:   s.Gauge("queue_paused", "Whether the queue is paused by an operator: 1 if it is.", "agent_key", "priority"),
		inbox:    s.Gauge("inbox_messages", "Messages that no dispatcher has answered yet.", "consumer"),
		lag:      s.Gauge("projection_lag_events", "Events that are not in a stored status record yet."),
		stored:   s.Gauge("storage_used_bytes", "What the account's streams hold on disk, replicas counted."),
		storable: s.Gauge("storage_limit_bytes", "What they may hold, where the account has a bound."),
		lagAge:   s.Gauge("projection_lag_seconds", "Age of the oldest event that is not in a stored status record yet."),
	}
}

// refresh brings the metrics up to date. What cannot be told is left out. The
// set calls it once at a time.
func (v *Survey) refresh() {
	if time.Since(v.taken) < v.Every {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), surveyWait)
	defer cancel()
	for _, g := range []*prometheus.GaugeVec{v.waiting, v.leased, v.oldest, v.paused, v.inbox, v.lag, v.lagAge, v.stored, v.storable} {
		g.Reset()
	}
	if err := errors.Join(v.queues(ctx), v.projection(ctx), v.storage(ctx)); err != nil {
		v.logger.Info("cannot ask the broker for metrics", "error", jsutil.Translate(err))
	}
	v.taken = time.Now()
}

// queues looks at the agents' queues and at the inbox.
func (v *Survey) queues(ctx context.Context) error {
	for _, name := range []string{contracts.ConsumerSubmit, contracts.ConsumerCommands} {
		cons, err := v.js.Consumer(ctx, contracts.StreamInbox, name)
		if err != nil {
			return fmt.Errorf("look at consumer %s: %w", name, err)
		}
		v.inbox.WithLabelValues(name).Set(unanswered(cons.CachedInfo()))
	}
	queues, err := Queues(ctx, v.js)
	for _, q := range queues {
		labels := []string{q.AgentKey, string(q.Priority)}
		v.waiting.WithLabelValues(labels...).Set(float64(q.Waiting))
		v.leased.WithLabelValues(labels...).Set(float64(q.Held))
		v.oldest.WithLabelValues(labels...).Set(q.OldestSeconds)
		paused := 0.0
		if q.Paused {
			paused = 1
		}
		v.paused.WithLabelValues(labels...).Set(paused)
	}
	return err
}

// Queues asks the broker for the load of every queue: one request for some
// hundred of them, and one for each in which runs wait. If it fails halfway, it
// returns those that it knows.
func Queues(ctx context.Context, js jetstream.JetStream) ([]contracts.QueueLoad, error) {
	stream, err := js.Stream(ctx, contracts.StreamWork)
	if err != nil {
		return nil, fmt.Errorf("look at stream %s: %w", contracts.StreamWork, err)
	}
	queues := []contracts.QueueLoad{}
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		part := strings.Split(info.Config.FilterSubject, ".")
		if len(part) != 5 { // not one of ours
			continue
		}
		q := contracts.QueueLoad{AgentKey: part[2], Priority: contracts.Priority(part[3]), Waiting: info.NumPending, Held: info.NumAckPending, Paused: info.Paused}
		if info.NumPending > 0 {
			if q.OldestSeconds, err = age(ctx, js, contracts.StreamWork, info.Delivered.Stream, info.Config.FilterSubject); err != nil {
				return queues, err
			}
		}
		queues = append(queues, q)
	}
	return queues, list.Err()
}

// storage tells how full the account is.
func (v *Survey) storage(ctx context.Context) error {
	info, err := v.js.AccountInfo(ctx)
	if err != nil {
		return fmt.Errorf("look at the account: %w", err)
	}
	v.stored.WithLabelValues().Set(float64(info.Store))
	if info.Limits.MaxStore > 0 {
		v.storable.WithLabelValues().Set(float64(info.Limits.MaxStore))
	}
	return nil
}

// projection looks at the projector's consumer.
func (v *Survey) projection(ctx context.Context) error {
	cons, err := v.js.Consumer(ctx, contracts.StreamLog, contracts.ConsumerProjector)
	if err != nil {
		return fmt.Errorf("look at consumer %s: %w", contracts.ConsumerProjector, err)
	}
	info := cons.CachedInfo()
	lag := 0.0
	if unanswered(info) > 0 {
		if lag, err = age(ctx, v.js, contracts.StreamLog, info.AckFloor.Stream, contracts.SubjectAllEvents); err != nil {
			return err
		}
	}
	v.lag.WithLabelValues().Set(unanswered(info))
	v.lagAge.WithLabelValues().Set(lag)
	return nil
}

// unanswered counts the messages of a consumer that are not acknowledged.
func unanswered(info *jetstream.ConsumerInfo) float64 {
	return float64(info.NumPending) + float64(info.NumAckPending)
}

// age is that of the first message behind a sequence, in seconds, by the
// broker's clock and ours; 0 if there is none any more.
func age(ctx context.Context, js jetstream.JetStream, stream string, after uint64, subject string) (float64, error) {
	m, err := jsutil.Get(ctx, js.Conn(), stream, jsutil.GetRequest{Seq: after + 1, NextFor: subject})
	if errors.Is(err, jsutil.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at the oldest message of %s: %w", subject, err)
	}
	stored, err := time.Parse(time.RFC3339Nano, m.Header.Get(nats.JSTimeStamp))
	if err != nil {
		return 0, fmt.Errorf("read the time of a message of %s: %w", subject, err)
	}
	return max(0, time.Since(stored).Seconds()), nil
}
