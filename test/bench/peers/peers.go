package main

import "context"

// peers are what Longhaul is compared with. asyncjobs, which runs on NATS too,
// is not among them: its module could not be had when this was written.
func peers() []contestant {
	asynq := func(concurrency int, file bool) func(context.Context, int) (sample, error) {
		return func(ctx context.Context, jobs int) (sample, error) { return measureAsynq(ctx, concurrency, file, jobs) }
	}
	river := func(mode riverMode) func(context.Context, int) (sample, error) {
		return func(ctx context.Context, jobs int) (sample, error) { return measureRiver(ctx, 64, mode, jobs) }
	}
	return []contestant{
		{"asynq on Redis, 16 at a time", 1, asynq(16, false)},
		{"asynq on Redis, 64 at a time", 1, asynq(64, false)},
		{"asynq, append-only file, 16 at a time", 1, asynq(16, true)},
		{"asynq, append-only file, 64 at a time", 1, asynq(64, true)},
		{"River as shipped, 64 at a time", 0.1, river(riverMode{})},
		{"River tuned, single inserts", 0.25, river(riverMode{tuned: true})},
		{"River tuned, inserts of 1,000", 0.5, river(riverMode{tuned: true, bulk: true})},
	}
}
