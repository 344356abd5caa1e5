package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"time"

	"longhaul/pkg/agent"
)

var tally = agent.New("tally", "adds up a file of sales, shop by shop", run)

// params is what a submission says. What has no omitempty is required.
type params struct {
	File    string `json:"file" jsonschema:"CSV file: date, shop, amount"`
	Batch   int    `json:"batch,omitempty" jsonschema:"rows between two checkpoints; 50 unless told"`
	PauseMS int    `json:"pause_ms,omitempty" jsonschema:"pause between two batches, to watch it work"`
}

// progress is both the checkpoint, from which the next attempt goes on, and the result.
type progress struct {
	Offset int              `json:"offset"` // in the file, of what is not added up yet
	Rows   int              `json:"rows"`
	Bad    int              `json:"bad"`   // rows that are no sale
	Cents  map[string]int64 `json:"cents"` // by shop
}

func run(ctx context.Context, run *agent.Run, p params) (progress, error) {
	if p.Batch <= 0 {
		p.Batch = 50
	}
	done, resumed, err := agent.State[progress](run) // what the last Checkpoint has saved
	if err != nil {
		return done, err
	}
	if resumed {
		run.Log().Info("going on", "row", done.Rows)
	} else {
		done.Cents = map[string]int64{}
	}

	text, err := os.ReadFile(p.File)
	if errors.Is(err, fs.ErrNotExist) {
		return done, agent.Permanent(err) // it would not be there the next time either
	} else if err != nil {
		return done, err
	}

	for done.Offset < len(text) {
		done.add(text, p.Batch)
		if err := run.Checkpoint(ctx, done); err != nil {
			return done, err
		}
		if err := run.Emit("progress", map[string]any{"rows": done.Rows, "percent": 100 * done.Offset / len(text)}); err != nil {
			return done, err
		}
		select {
		case <-time.After(time.Duration(p.PauseMS) * time.Millisecond):
		case <-ctx.Done(): // cancelled, timed out, or the worker is to stop
			return done, context.Cause(ctx)
		}
	}
	return done, nil
}

// add adds up the next rows of the text.
func (p *progress) add(text []byte, rows int) {
	begin := p.Offset
	in := csv.NewReader(bytes.NewReader(text[begin:]))
	in.FieldsPerRecord = -1 // bad rows are counted, not fatal
	for range rows {
		row, err := in.Read()
		p.Offset = begin + int(in.InputOffset())
		if errors.Is(err, io.EOF) {
			return
		}
		p.Rows++
		shop, cents, ok := sale(row)
		if err != nil || !ok {
			p.Bad++
			continue
		}
		p.Cents[shop] += cents
	}
}

func sale(row []string) (shop string, cents int64, ok bool) {
	if len(row) != 3 {
		return "", 0, false
	}
	amount, err := strconv.ParseFloat(row[2], 64)
	return row[1], int64(math.Round(amount * 100)), err == nil
}
