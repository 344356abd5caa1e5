package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/backup"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

// groups lists all streams and, behind each, its consumers, as the API's
// subjects name them.
func (s *stage) groups(ctx context.Context) (streams []string, consumers map[string][]string, err error) {
	js, err := jsutil.JetStream(s.nc)
	if err != nil {
		return nil, nil, err
	}
	consumers = map[string][]string{}
	for _, name := range backup.Streams() {
		st, err := js.Stream(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		streams = append(streams, name)
		list := st.ListConsumers(ctx)
		for c := range list.Info() {
			if c.Cluster != nil && len(c.Cluster.Replicas) > 0 { // a watcher's has one replica
				consumers[name] = append(consumers[name], c.Name)
			}
		}
		if list.Err() != nil {
			return nil, nil, list.Err()
		}
	}
	return streams, consumers, nil
}

// stepDown has a stream (or one of its consumers) get another leader: the one
// preferred, or any.
func (s *stage) stepDown(ctx context.Context, group string, preferred *cluster.Node) error {
	var body []byte
	if preferred != nil {
		body = fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, preferred.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := s.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+group, body)
	if err != nil {
		return fmt.Errorf("%s: %w", group, err)
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("%s: %w", group, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %w", group, answer.Error)
	}
	return nil
}

func ofStream(name string) string { return "STREAM.LEADER.STEPDOWN." + name }
func ofConsumer(stream, consumer string) string {
	return "CONSUMER.LEADER.STEPDOWN." + stream + "." + consumer
}

// lead has one broker lead all streams and consumers.
func (s *stage) lead(ctx context.Context, n *cluster.Node) error {
	streams, consumers, err := s.groups(ctx)
	if err != nil {
		return err
	}
	js, err := jsutil.JetStream(s.nc)
	if err != nil {
		return err
	}
	var last error
	err = cluster.WaitFor(ctx, upTime, n.Name+" to lead everything", func() bool {
		// Nobody answers for a consumer without a leader.
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		last = nil
		for _, name := range streams {
			last = errors.Join(last, s.leadOne(try, js, n, name, consumers[name]))
		}
		return last == nil
	})
	return errors.Join(err, last)
}

// leadOne asks whether one broker leads a stream and its consumers, and has
// those step down that do not; an error says that not all did.
func (s *stage) leadOne(ctx context.Context, js jetstream.JetStream, n *cluster.Node, name string, consumers []string) error {
	st, err := js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("stream %s: %w", name, err)
	}
	var errs []error
	if l := st.CachedInfo().Cluster.Leader; l != n.Name {
		errs = append(errs, fmt.Errorf("%s is led by %q", name, l), s.stepDown(ctx, ofStream(name), n))
	}
	for _, c := range consumers {
		consumer, err := st.Consumer(ctx, c)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s > %s: %w", name, c, err))
			continue
		}
		if l := consumer.CachedInfo().Cluster.Leader; l != n.Name {
			errs = append(errs, fmt.Errorf("%s > %s is led by %q", name, c, l), s.stepDown(ctx, ofConsumer(name, c), n))
		}
	}
	return errors.Join(errs...)
}

// changeLeaders gives each stream another leader, and then all consumers of each.
func changeLeaders(ctx context.Context, s *stage, o options, res *result) error {
	return s.underLoad(ctx, o, res, func(ctx context.Context) (all []window, err error) {
		streams, consumers, err := s.groups(ctx)
		if err != nil {
			return nil, err
		}
		if o.short {
			streams = streams[:1]
		}
		for _, name := range streams {
			w, err := s.disturb(ctx, "leader of "+name, func(ctx context.Context) error { return s.stepDown(ctx, ofStream(name), nil) })
			if err != nil {
				return nil, err
			}
			all = append(all, w)
		}
		for _, name := range slices.Sorted(maps.Keys(consumers)) {
			w, err := s.disturb(ctx, fmt.Sprintf("leaders of the %d consumers of %s", len(consumers[name]), name), func(ctx context.Context) error {
				for _, c := range consumers[name] {
					if err := s.stepDown(ctx, ofConsumer(name, c), nil); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			all = append(all, w)
		}
		return all, nil
	})
}
