package jsutil_test

import (
	"errors"
	"testing"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestDelete(t *testing.T) {
	b, ctx := jstest.Start(t), t.Context()
	ack, err := b.JS.PublishMsg(ctx, message(contracts.LogSubject(runA), "x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"there", "gone already"} {
		if err := jsutil.Delete(ctx, b.NC, contracts.StreamLog, ack.Sequence); err != nil {
			t.Errorf("a message that is %s: %v", call, err)
		}
		if _, err := jsutil.GetFromLeader(ctx, b.NC, contracts.StreamLog, jsutil.GetRequest{Seq: ack.Sequence}); !errors.Is(err, jsutil.ErrNotFound) {
			t.Errorf("a message that was %s is still to be had: %v", call, err)
		}
	}
	if err := jsutil.Delete(ctx, b.NC, "NOWHERE", 1); !errors.Is(err, jsutil.ErrNoTopology) {
		t.Errorf("of a stream that does not exist: %v", err)
	}
}
