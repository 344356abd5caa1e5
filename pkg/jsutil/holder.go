package jsutil

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
)

// AskHolder asks a worker and waits for its answer until ctx ends. Errors:
// nats.ErrNoResponders if nobody listens under that name;
// context.DeadlineExceeded if somebody does and says nothing; any other if
// workerID is no name, our own connection failed, or the answer is unreadable.
func AskHolder(ctx context.Context, nc *nats.Conn, workerID string, question contracts.HolderRequest) (reply contracts.HolderReply, err error) {
	body, err := contracts.Encode(question)
	if err == nil {
		err = contracts.CheckWorkerID(workerID)
	}
	var m *nats.Msg
	if err == nil {
		m, err = nc.RequestWithContext(ctx, contracts.WorkerSubject(workerID), body)
	}
	if err == nil {
		err = json.Unmarshal(m.Data, &reply)
	}
	if err != nil {
		return reply, fmt.Errorf("ask worker %q: %w", workerID, err)
	}
	return reply, nil
}
