package jsutil

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Delivery is one handing-over of a message by a pull consumer: the message
// and the lease on it. Until the lease runs out (the consumer's AckWait since
// the delivery or the last Extend) nobody else is handed the message.
//
// Of its answers only ExtendConfirmed's is confirmed by the broker, and the broker takes them
// even from a receiver whose lease is over (JETSTREAM.md "Acks, leases,
// redelivery"): an answer is a hint, exclusion is the run log's business.
// Its methods may be called from several goroutines.
type Delivery struct {
	Subject string
	Header  nats.Header
	Data    []byte
	// Sequence is the message's own in its stream, Stored when the broker took it.
	Sequence uint64
	Stored   time.Time
	// Received is when it was handed to us, by our own clock.
	Received time.Time
	// Since is when the lease has been ours since, at the latest: the request that
	// the message answers was sent then. Zero if that is not known; whoever has an
	// extension confirmed may set it to when that was sent.
	Since time.Time
	// Delivered is 1 at the first delivery. It is no attempt counter: a broker
	// that was killed may begin anew.
	Delivered uint64
	// Pending is how many messages of the consumer have not been delivered yet.
	Pending uint64
	// Finished, if set, is for whoever answers the message to call, with what came of it.
	Finished func(error)

	nc    *nats.Conn
	token string
}

// DeliveryOf is the delivery of a message that the client library has fetched over nc.
func DeliveryOf(nc *nats.Conn, m jetstream.Msg) (*Delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, fmt.Errorf("read the delivery of %s: %w", m.Subject(), err)
	}
	return &Delivery{
		Subject: m.Subject(), Header: m.Headers(), Data: m.Data(),
		Sequence: meta.Sequence.Stream, Stored: meta.Timestamp, Delivered: meta.NumDelivered, Pending: meta.NumPending, Received: time.Now(),
		nc: nc, token: m.Reply(),
	}, nil
}

// newDelivery reads m, a message that a pull consumer sent over nc.
func newDelivery(nc *nats.Conn, m *nats.Msg) (*Delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, fmt.Errorf("read the delivery of %s: %w", m.Subject, err)
	}
	return &Delivery{
		Subject: m.Subject, Header: m.Header, Data: m.Data,
		Sequence: meta.Sequence.Stream, Stored: meta.Timestamp, Delivered: meta.NumDelivered, Pending: meta.NumPending, Received: time.Now(),
		nc: nc, token: m.Reply,
	}, nil
}

// Ack says that the message is done with; the broker removes it from a work queue.
func (d *Delivery) Ack() error { return d.answer("+ACK") }

// Extend starts the lease's time anew.
func (d *Delivery) Extend() error { return d.answer("+WPI") }

// ExtendConfirmed is Extend, and waits until the broker says that it is done.
// It says so to one whose lease is over as well.
func (d *Delivery) ExtendConfirmed(ctx context.Context) error {
	if _, err := d.nc.RequestWithContext(ctx, d.token, []byte("+WPI")); err != nil {
		return fmt.Errorf("extend the lease: %w", unanswered(err))
	}
	return nil
}

// Term gives a message up that can never be handled.
func (d *Delivery) Term() error { return d.answer("+TERM") }

// Nak gives the lease back; the message is delivered again after delay, at
// once if that is zero.
func (d *Delivery) Nak(delay time.Duration) error {
	if delay <= 0 {
		return d.answer("-NAK")
	}
	return d.answer(`-NAK {"delay":` + strconv.FormatInt(delay.Nanoseconds(), 10) + "}")
}

// Token is the lease's ack subject. With it ReleaseToken gives the lease back
// for a holder that died.
func (d *Delivery) Token() string { return d.token }

func (d *Delivery) answer(body string) error {
	if err := d.nc.Publish(d.token, []byte(body)); err != nil {
		return fmt.Errorf("answer %s: %w", body, Translate(err))
	}
	return nil
}

// ReleaseToken gives back the lease whose token is given, as its holder's Nak
// would: the broker delivers the message again at once.
func ReleaseToken(nc *nats.Conn, token string) error {
	d := Delivery{nc: nc, token: token}
	return d.Nak(0)
}
