package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"slices"
	"strings"
)

// The plot: sizes of the table from left to right, each time a line.
const (
	plotWidth, plotHeight    = 860, 460
	plotLeft, plotRight      = 60, 250
	plotTop, plotBottom      = 40, 50
	plotStep              ns = 20 // between two lines of the grid
)

type curve struct {
	way                         way
	lcores                      int
	frames, path, label, colour string
}

func (c *curve) at(flows uint64) Series {
	return Series{Flows: flows, Way: c.way.name, Lcores: c.lcores, Frames: c.frames, Path: c.path}
}

var curves = []curve{
	{ipv4L2, 1, "new", "crt", "first data of a new connection", "#8c564b"},
	{ipv4L2, 1, "syn", "crt", "SYN, answered with a cookie", "#9467bd"},
	{ipv4L2, 1, "forged", "crt", "forged acknowledgement", "#ff7f0e"},
	{ipv4L2, 1, "hit", "rte_hash", "known flow, rte_hash", "#d62728"},
	{ipv6L2, 1, "hit", "crt", "known flow, IPv6", "#e377c2"},
	{ipv4GUE, 1, "hit", "crt", "known flow, GUE tunnel", "#bcbd22"},
	{ipv4L2, 2, "hit", "crt", "known flow, each of 2 lcores", "#aec7e8"},
	{ipv4L2, 1, "hit", "crt", "known flow", "#1f77b4"},
	{ipv4L2, 1, "hit", "stub", "known flow, lookup stubbed", "#7f7f7f"},
	{ipv4L2, 1, "line", "memory", "one random line of the table", "#17becf"},
	{ipv4L2, 1, "not_ours", "crt", "not ours, dropped", "#2ca02c"},
}

// plot writes an SVG file.
func (r *Result) plot(path string) error {
	var sizes []uint64
	top := plotStep
	for _, s := range r.Series {
		if !slices.Contains(sizes, s.Flows) {
			sizes = append(sizes, s.Flows)
		}
	}
	for _, c := range curves {
		for _, size := range sizes {
			if n := r.netOf(c.at(size)); !math.IsNaN(float64(n)) {
				top = max(top, n)
			}
		}
	}
	top = ns(math.Ceil(float64(top/plotStep))) * plotStep
	x := func(i int) float64 {
		return plotLeft + float64(i)*(plotWidth-plotLeft-plotRight)/float64(max(1, len(sizes)-1))
	}
	y := func(n ns) float64 { return plotHeight - plotBottom - float64(n/top)*(plotHeight-plotTop-plotBottom) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="white"/>
<text x="%d" y="22">CPU time of a frame without source and sink, ns, by flows in the table</text>
`, plotWidth, plotHeight, plotLeft)
	for n := ns(0); n <= top; n += plotStep {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			plotLeft, y(n), plotWidth-plotRight, plotLeft-8, y(n)+4, float64(n))
	}
	for i, size := range sizes {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(i), plotHeight-plotBottom+20,
			short(size))
	}
	for n, c := range curves {
		r.plotCurve(&b, c, sizes, x, y)
		legend := plotTop + 20 + 22*n
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="14" height="4" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			plotWidth-plotRight+20, legend-6, c.colour, plotWidth-plotRight+40, legend, html.EscapeString(c.label))
	}
	b.WriteString("</svg>\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func (r *Result) plotCurve(b *strings.Builder, c curve, sizes []uint64, x func(int) float64, y func(ns) float64) {
	var points []string
	for i, size := range sizes {
		if n := r.netOf(c.at(size)); !math.IsNaN(float64(n)) {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(i), y(n)))
		}
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "),
		c.colour)
}
