package dispatcher

import (
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// After a full disk the broker shows a submission again that was done with. It
// is below the floor of its consumer and delivered to nobody, and a cancel of a
// run that there never was does not wait for it.
func TestCancelDoesNotWaitForWhatIsDone(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	done := b.submit(t, full(contracts.NewRunID()))
	d := b.dispatcher()
	cancel := &jsutil.Delivery{Sequence: done + 1, Delivered: submitWaits + 1}
	if err := d.awaitSubmit(t.Context(), cancel, contracts.NewRunID()); err == nil {
		t.Fatal("the cancel is dropped while an older submission waits")
	}
	// Only the broker itself moves a floor past a message and leaves it there.
	if _, err := b.NC.Request("$JS.API.CONSUMER.RESET."+contracts.StreamInbox+"."+contracts.ConsumerSubmit, []byte(`{"seq":100}`), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	c, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSubmit)
	if err != nil || c.CachedInfo().AckFloor.Stream < done {
		t.Fatalf("the floor is still below: %+v, %v", c.CachedInfo().AckFloor, err)
	}
	if err := d.awaitSubmit(t.Context(), cancel, contracts.NewRunID()); err != nil {
		t.Errorf("the cancel waits: %v", err)
	}
}
