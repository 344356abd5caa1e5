// Package metricstest reads metrics in tests, as a scrape would.
package metricstest

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Read returns the value of a metric, added up over all labels that are not
// given; labels are names and values by turns. Of a histogram it is the number
// of observations. ok is false if there is no such metric with such labels.
func Read(t testing.TB, g prometheus.Gatherer, name string, labels ...string) (value float64, ok bool) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatalf("gather: %v", err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			wanted := true
			for i := 0; i+1 < len(labels); i += 2 {
				wanted = wanted && slices.Contains(have, labels[i]+"="+labels[i+1])
			}
			if wanted {
				ok = true
				value += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return value, ok
}

// Dump is all that g has, for the message of a test that failed.
func Dump(t testing.TB, g prometheus.Gatherer) string {
	t.Helper()
	families, err := g.Gather()
	var all strings.Builder
	for _, f := range families {
		all.WriteString(f.String() + "\n")
	}
	if err != nil {
		all.WriteString(err.Error())
	}
	return all.String()
}
