package main

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"os"
	"strings"
)

// peersReport is what test/bench/peers writes down, as far as it is drawn.
type peersReport struct {
	Lines []struct {
		Name   string
		Median struct {
			PerSecond float64 `json:"per_second"`
			CPU       float64 `json:"cpu_us"`
		}
	}
}

// readJSON reads a report back.
func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("read a report: %w", err)
	}
	return nil
}

// The picture's measures, in pixels.
const (
	plotLabels, plotBars, plotNumbers = 270.0, 430.0, 90.0
	plotBar, plotGap, plotTitle       = 16.0, 6.0, 44.0
)

// plotColours are told apart by most people (Okabe and Ito), one for each kind
// of process; the first is that of bars of one piece.
var plotColours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"}

// bar is one line of a panel: its pieces lie side by side.
type bar struct {
	label  string
	pieces []float64
	grey   bool // what ours is held against
}

// panel is a set of bars on one scale.
type panel struct {
	title  string
	format string // of the number behind a bar
	legend []string
	bars   []bar
	mark   float64 // a value that a line shows; 0 for none
}

// draw is the report as an SVG picture, with the peers beside it if they were measured.
func (r *report) draw(peers *peersReport) string {
	panels := []panel{r.ratioPanel(), r.costPanel()}
	if peers != nil {
		rate := panel{title: "jobs of 512 B a second, client, worker and server on two processors", format: "%.0f"}
		cost := panel{title: "processor time a job, all processes, µs", format: "%.0f"}
		for _, l := range peers.Lines {
			grey := !strings.HasPrefix(l.Name, "Longhaul")
			if l.Median.PerSecond > 0 {
				rate.bars = append(rate.bars, bar{l.Name, []float64{l.Median.PerSecond}, grey})
				cost.bars = append(cost.bars, bar{l.Name, []float64{l.Median.CPU}, grey})
			}
		}
		panels = append(panels, rate, cost)
	}
	height := 0.0
	for _, p := range panels {
		height += p.height()
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n", plotLabels+plotBars+plotNumbers, height)
	top := 0.0
	for _, p := range panels {
		p.draw(&b, top)
		top += p.height()
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// ratioPanel holds ours against the ideal run, wherever both were measured.
func (r *report) ratioPanel() panel {
	p := panel{title: "runs a second, of the ideal run on the same brokers", format: "%.2f", mark: 1}
	for _, l := range r.Lines {
		if strings.HasPrefix(l.Name, "longhaul") && strings.HasPrefix(l.Of, "ideal run") && l.Ratio > 0 {
			p.bars = append(p.bars, bar{label: strings.TrimPrefix(l.Name, "longhaul, ") + ", " + l.Stage, pieces: []float64{l.Ratio}})
		}
	}
	return p
}

// costPanel is where the processor time of a run goes.
func (r *report) costPanel() panel {
	p := panel{title: "processor time a run by process, µs", format: "%.0f", legend: kinds}
	for _, l := range r.Lines {
		if l.Group != "end-to-end" {
			continue
		}
		one := bar{label: l.Name}
		for _, k := range kinds {
			one.pieces = append(one.pieces, l.Median.CPU[k])
		}
		p.bars = append(p.bars, one)
	}
	return p
}

func (p panel) height() float64 {
	legend := 0.0
	if len(p.legend) > 0 {
		legend = plotBar + plotGap
	}
	return plotTitle + legend + float64(len(p.bars))*(plotBar+plotGap)
}

func (p panel) draw(b *strings.Builder, top float64) {
	text := func(x, y float64, style, s string) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, style, html.EscapeString(s))
	}
	most := max(math.SmallestNonzeroFloat64, p.mark)
	for _, one := range p.bars {
		most = max(most, one.sum())
	}
	text(12, top+26, `font-weight="bold"`, p.title)
	y := top + plotTitle - 8
	for _, one := range p.bars {
		text(plotLabels-8, y+plotBar-4, `text-anchor="end"`, one.label)
		x := plotLabels
		for i, v := range one.pieces {
			colour := plotColours[i%len(plotColours)]
			if one.grey {
				colour = "#999999"
			}
			width := v / most * plotBars
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%g" fill="%s"/>`+"\n", x, y, width, plotBar, colour)
			x += width
		}
		text(x+6, y+plotBar-4, "", fmt.Sprintf(p.format, one.sum()))
		y += plotBar + plotGap
	}
	if p.mark > 0 {
		x := plotLabels + p.mark/most*plotBars
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="black" stroke-dasharray="4 3"/>`+"\n", x, top+plotTitle-12, x, y)
	}
	for i, name := range p.legend {
		x := plotLabels + float64(i)*plotBars/float64(len(p.legend))
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="10" height="10" fill="%s"/>`+"\n", x, y+4, plotColours[i%len(plotColours)])
		text(x+14, y+13, "", name)
	}
}

func (one bar) sum() (sum float64) {
	for _, v := range one.pieces {
		sum += v
	}
	return sum
}
