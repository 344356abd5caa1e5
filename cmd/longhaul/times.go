package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ago says how far t is from now, in words: "12s ago", "in 5m"; empty for the zero time.
func (c console) ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := c.now().Sub(t)
	switch {
	case d < -time.Second:
		return "in " + short(-d)
	case d < time.Second:
		return "just now"
	}
	return short(d) + " ago"
}

// at shows a time and how long ago it is.
func (c console) at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05") + c.dim(" ("+c.ago(t)+")")
}

// short shows a duration with as much precision as a person wants.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + short(-d)
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', -1, 64) + "s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return twoUnits(int(d.Minutes()), "m", int(d.Seconds())%60, "s")
	case d < 48*time.Hour:
		return twoUnits(int(d.Hours()), "h", int(d.Minutes())%60, "m")
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

func twoUnits(a int, aUnit string, b int, bUnit string) string {
	if b == 0 {
		return strconv.Itoa(a) + aUnit
	}
	return strconv.Itoa(a) + aUnit + strconv.Itoa(b) + bUnit
}

// number shows n with its thousands apart: 12,345.
func number(n int) string {
	s := strconv.Itoa(n)
	var b strings.Builder
	for i, r := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// bytes shows a size.
func byteSize(n int) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 10<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// parsePast reads a point in time that flags name: RFC 3339, a date, or a
// duration that reaches back from now, such as 1h or 7d.
func parsePast(s string, now time.Time) (time.Time, error) {
	if d, err := parseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	return parseTime(s)
}

// parseFuture is parsePast with durations that reach forward.
func parseFuture(s string, now time.Time) (time.Time, error) {
	if d, err := parseDuration(s); err == nil {
		return now.Add(d), nil
	}
	return parseTime(s)
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a time, such as 2026-11-22T10:00:00Z, nor a duration, such as 10m", s)
}

// parseDuration reads 90, 90s, 5m, 1h30m and 7d; a bare number is seconds.
func parseDuration(s string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && seconds >= 0 && seconds < 1e9 {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n < 1e5 {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration, such as 90s or 5m", s)
	}
	return d, nil
}
