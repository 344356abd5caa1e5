package dispatcher

import (
	"testing"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

// A redrive and the removal of its run settle it by one key: who created it
// goes on. A delivery that got no further does not stand in the next one's way.
func TestRedriveAndRemoval(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	removed, tried, free := b.newRun(t), b.newRun(t), b.newRun(t)
	key := func(id string) string {
		last := b.append(t, id, startedDraft("w-1"), failedDraft)
		b.remove(t, b.work(t, id).Sequence)
		return contracts.KVSubject(contracts.BucketRuns, contracts.RoundKey(id, last.Sequence))
	}
	b.publish(t, key(removed), contracts.RoundRemoval)
	triedKey, freeKey := key(tried), key(free)
	b.publish(t, triedKey, contracts.RoundRedrive)
	b.start(t, Config{})
	for _, id := range []string{removed, tried, free} {
		b.publish(t, contracts.RedriveSubject(id), "")
	}
	b.waitEmpty(t)
	b.waitHistory(t, removed, "run.queued run.started run.failed")
	b.waitHistory(t, tried, "run.queued run.started run.failed run.requeued")
	b.waitHistory(t, free, "run.queued run.started run.failed run.requeued")
	for _, subject := range []string{triedKey, freeKey} {
		m, err := b.last(t, contracts.StreamRuns, subject)
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Data) != contracts.RoundRedrive {
			t.Errorf("%s holds %q", subject, m.Data)
		}
	}
}
