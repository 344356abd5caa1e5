package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// finishing bounds how long the broker takes for a stream once it has all of it.
const finishing = time.Hour

// Options of a restore.
type Options struct {
	// Replicas of each stream, in place of what it had; 0 leaves that.
	Replicas int
}

// Restore puts a backup back. The broker must hold none of the streams: nothing
// is overwritten. No service may run until it has returned. If it fails halfway,
// the streams that are there have to be deleted before it is tried again.
func Restore(ctx context.Context, js jetstream.JetStream, dir string, o Options, done func(Saved)) (Manifest, error) {
	m, err := Read(dir)
	if err != nil {
		return m, err
	}
	if m.Topology > jsutil.TopologyVersion {
		return m, fmt.Errorf("the backup's topology is of version %d, made by a newer Longhaul (%s); this one knows version %d: use the newer one",
			m.Topology, m.Longhaul, jsutil.TopologyVersion)
	}
	if there, err := present(ctx, js, m); err != nil || len(there) > 0 {
		return m, errors.Join(err, presentError(there))
	}
	for _, s := range m.Streams {
		if err := putBack(ctx, js.Conn(), filepath.Join(dir, s.Name), s.Name, o); err != nil {
			return m, fmt.Errorf("restore stream %s: %w", s.Name, err)
		}
		done(s)
	}
	if err := forgetStatuses(ctx, js); err != nil {
		return m, err
	}
	// The projector's consumer again, at the first event.
	if err := jsutil.EnsureTopology(ctx, js, jsutil.NewTopology(jsutil.TopologyOptions{Replicas: o.Replicas})); err != nil {
		return m, fmt.Errorf("make the topology whole: %w", err)
	}
	return m, nil
}

// present lists the streams of a backup that the broker has.
func present(ctx context.Context, js jetstream.JetStream, m Manifest) (names []string, err error) {
	for _, s := range m.Streams {
		switch _, err := js.Stream(ctx, s.Name); {
		case err == nil:
			names = append(names, s.Name)
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return nil, fmt.Errorf("look for stream %s: %w", s.Name, jsutil.Translate(err))
		}
	}
	return names, nil
}

func presentError(names []string) error {
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("the broker holds %v already, and nothing is overwritten: stop all services, and delete what is to be replaced (nats stream rm NAME)", names)
}

// putBack restores one stream. Its parts are sent one by one, each answered.
func putBack(ctx context.Context, nc *nats.Conn, dir, name string, o Options) (err error) {
	data, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return err
	}
	var m meta
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("decode %s: %w", metaFile, err)
	}
	if o.Replicas > 0 {
		if m.Config, err = with(m.Config, "num_replicas", o.Replicas); err != nil {
			return err
		}
	}
	f, err := os.Open(filepath.Join(dir, dataFile))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	var to struct {
		DeliverSubject string `json:"deliver_subject"`
	}
	if err := call(ctx, nc, "STREAM.RESTORE."+name, m, &to); err != nil {
		return err
	}
	part := make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(f, part)
		if n > 0 {
			if err := send(ctx, nc, to.DeliverSubject, part[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, finishing)
	defer cancel()
	last, err := nc.RequestWithContext(ctx, to.DeliverSubject, nil)
	if err != nil {
		return fmt.Errorf("wait for the stream to be made: %w", jsutil.Translate(err))
	}
	return answer(last.Data, &struct{}{})
}

// send sends one part. A part that is taken is answered with nothing.
func send(ctx context.Context, nc *nats.Conn, subject string, part []byte) error {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, subject, part)
	if err != nil {
		return fmt.Errorf("send a part: %w", jsutil.Translate(err))
	}
	if len(m.Data) > 0 {
		return answer(m.Data, &struct{}{})
	}
	return nil
}

// with sets one field of a JSON object, and leaves the others as they are.
func with(object json.RawMessage, field string, value any) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(object, &fields)
	if err == nil {
		fields[field], err = json.Marshal(value)
	}
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", field, err)
	}
	return json.Marshal(fields)
}

// forgetStatuses has statekeeper fold every status anew: those that were saved
// are newer than the logs.
func forgetStatuses(ctx context.Context, js jetstream.JetStream) error {
	s, err := js.Stream(ctx, contracts.StreamRuns)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(contracts.KVSubject(contracts.BucketRuns, "status.*")))
	}
	if err == nil {
		err = js.DeleteConsumer(ctx, contracts.StreamLog, contracts.ConsumerProjector)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("forget the statuses: %w", jsutil.Translate(err))
	}
	return nil
}
