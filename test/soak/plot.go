package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The picture's measures, in pixels.
const (
	panelWidth, panelHeight = 640.0, 150.0
	marginLeft, marginTop   = 60.0, 34.0
	legendWidth, gap        = 230.0, 62.0
)

// colours are told apart by most people (Okabe and Ito).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}

// draw is the record as an SVG picture: memory, goroutines, disk, messages.
func (r record) draw() string {
	var b strings.Builder
	panels := []struct{ title, suffix string }{
		{"resident memory, MiB", " memory, MiB"}, {"goroutines", " goroutines"},
		{"broker's disk, MiB", " disk, MiB"}, {"messages in the streams", " messages"},
	}
	height := float64(len(panels))*(panelHeight+gap) + marginTop
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n", marginLeft+panelWidth+legendWidth, height)
	all := r.series()
	for i, p := range panels {
		var some []series
		for _, s := range all {
			if name, ok := strings.CutSuffix(s.name, p.suffix); ok {
				some = append(some, series{name: name, values: s.values})
			}
		}
		r.panel(&b, marginTop+float64(i)*(panelHeight+gap), p.title, some)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// panel draws some series from zero to their common maximum.
func (r record) panel(b *strings.Builder, top float64, title string, some []series) {
	end, most := 1.0, 1.0
	for i, at := range r {
		end = max(end, at.Seconds)
		for _, s := range some {
			most = max(most, s.values[i])
		}
	}
	most = roundUp(most)
	fmt.Fprintf(b, `<text x="%g" y="%g" font-weight="bold">%s</text>`+"\n", marginLeft, top-10, html.EscapeString(title))
	for tick := range 5 {
		part := float64(tick) / 4
		x, y := marginLeft+part*panelWidth, top+panelHeight*(1-part)
		fmt.Fprintf(b, `<line x1="%g" y1="%g" x2="%g" y2="%g" stroke="#dddddd"/><text x="%g" y="%g" text-anchor="end">%g</text>`+"\n",
			marginLeft, y, marginLeft+panelWidth, y, marginLeft-6, y+4, most*part)
		fmt.Fprintf(b, `<text x="%g" y="%g" text-anchor="middle">%.3g min</text>`+"\n", x, top+panelHeight+16, end*part/60)
	}
	for i, s := range some {
		colour := colours[i%len(colours)]
		var points strings.Builder
		for j, at := range r {
			fmt.Fprintf(&points, "%.1f,%.1f ", marginLeft+at.Seconds/end*panelWidth, top+panelHeight*(1-s.values[j]/most))
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>`+"\n", colour, strings.TrimSpace(points.String()))
		fmt.Fprintf(b, `<text x="%g" y="%g" fill="%s">%s, last %.4g</text>`+"\n",
			marginLeft+panelWidth+12, top+14+16*float64(i), colour, html.EscapeString(s.name), s.values[len(s.values)-1])
	}
}

// roundUp is the next of 1, 2, 4, 5, 8 times a power of ten.
func roundUp(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 2, 4, 5, 8} {
		if v <= step*power {
			return step * power
		}
	}
	return 10 * power
}
