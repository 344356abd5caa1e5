package bench

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Median of all, of which there must be one; all keeps its order.
func Median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// PerSecond is the rate of n things within d.
func PerSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

// slowest is the longest latency that is told apart; what takes longer counts as this.
const slowest = 10 * time.Minute

// Latencies are a histogram of durations, to three digits. Its methods may be
// called from many goroutines.
type Latencies struct {
	mu   sync.Mutex
	hist *hdrhistogram.Histogram
}

// NewLatencies returns an empty histogram.
func NewLatencies() *Latencies {
	return &Latencies{hist: hdrhistogram.New(1, slowest.Microseconds(), 3)}
}

// Record adds d.
func (l *Latencies) Record(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.hist.RecordValue(min(max(d, time.Microsecond), slowest).Microseconds()) // which is within its bounds
}

// Quantiles of a histogram, in milliseconds.
type Quantiles struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p99_9_ms"`
	Max   float64 `json:"max_ms"`
}

// Quantiles returns those of all that was recorded.
func (l *Latencies) Quantiles() Quantiles {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Quantiles{
		Count: l.hist.TotalCount(), P50: ms(l.hist.ValueAtQuantile(50)), P99: ms(l.hist.ValueAtQuantile(99)),
		P999: ms(l.hist.ValueAtQuantile(99.9)), Max: ms(l.hist.Max()),
	}
}

// Take returns what was recorded since the last Take, in the form that Add reads.
func (l *Latencies) Take() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := l.hist.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encode a histogram: %w", err)
	}
	l.hist.Reset()
	return data, nil
}

// Add adds what another one has taken.
func (l *Latencies) Add(taken []byte) error {
	h, err := hdrhistogram.Decode(taken)
	if err != nil {
		return fmt.Errorf("decode a histogram: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hist.Merge(h)
	return nil
}
