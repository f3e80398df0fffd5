//go:build linux && bench

package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"text/template"
	"time"
)

// calmReport is all that TestCalm has measured.
type calmReport struct {
	calmScale

	heavies []heavy
	pairs   map[string][]pair
	busy    string // load average of the machine before the first pair
}

// loadAverage returns how busy the machine was in the last minute.
func loadAverage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	average, _, _ := strings.Cut(string(text), " ")
	return average
}

var calmPage = template.Must(template.New("calm").Parse(`<!-- Written by make calm: BENCH_OUT=docs/performance.md make calm -->
## validate beside heavy work

Measured on {{.Date}} at commit {{.Commit}} on {{.Machine}}, with {{.Sessions}} living sessions and {{.Tombstones}} tombstones in the store;
the machine's load average was {{.Busy}} before all of this.

A process of its own sends {{.Rate}} validates a second, each at its moment whatever becomes of those before, and takes the time from
that moment to the answer. The server, this load and whoever asks for the work share all cores. Each row is the median of {{.Rounds}} pairs,
run in turn: {{.Alone}} without the work, then beside it, or the other way round; each round that changes the data begins with the same ones. The bar: p99
beside the work is at most {{.BarTimes}} times that of the same pair without it, or {{.BarMore}} more.

| beside | p99 alone | p99 beside | times | more | the bar | the work took | memory |
|---|---|---|---|---|---|---|---|
{{range .Rows}}| {{.}} |
{{end}}{{range .Notes}}
{{.}}
{{end}}`))

func (r *calmReport) markdown(t *testing.T, dir string) string {
	t.Helper()
	var rows, notes []string
	for _, h := range r.heavies {
		pairs := r.pairs[h.name]
		verdict := "held"
		if mid(pairs, func(p pair) time.Duration { return p.over() }) > 0 {
			verdict = "**missed**"
		}
		rows = append(rows, strings.Join([]string{
			h.about,
			milliseconds(mid(pairs, func(p pair) time.Duration { return p.alone.answers.p99 })),
			milliseconds(mid(pairs, func(p pair) time.Duration { return p.beside.answers.p99 })),
			fmt.Sprintf("%.2f", mid(pairs, func(p pair) float64 { return float64(p.beside.answers.p99) / float64(p.alone.answers.p99) })),
			milliseconds(mid(pairs, func(p pair) time.Duration { return p.beside.answers.p99 - p.alone.answers.p99 })),
			verdict,
			fmt.Sprintf("%.1f s", mid(pairs, func(p pair) time.Duration { return p.took }).Seconds()),
			fmt.Sprintf("+%d MiB", mid(pairs, func(p pair) int64 { return p.grown })>>20),
		}, " | "))
		if h.changes {
			notes = append(notes, fmt.Sprintf("Beside the %s, the p99 of creates was %s (%s without it), that of ends %s (%s).", h.name,
				milliseconds(mid(pairs, func(p pair) time.Duration { return p.beside.creates })), milliseconds(mid(pairs, func(p pair) time.Duration { return p.alone.creates })),
				milliseconds(mid(pairs, func(p pair) time.Duration { return p.beside.ends })), milliseconds(mid(pairs, func(p pair) time.Duration { return p.alone.ends }))))
		}
		notes = append(notes, fmt.Sprintf("%s, in each round: %s.", h.name, done(pairs)))
	}
	var text strings.Builder
	if err := calmPage.Execute(&text, map[string]any{
		"Date": time.Now().UTC().Format(time.DateOnly), "Commit": commit(t), "Machine": machine(t, dir), "Busy": r.busy, "Rate": calmRate, "Rounds": r.rounds,
		"Sessions": thousands(r.sessions), "Tombstones": thousands(r.tombstones), "Alone": r.alone, "BarTimes": barTimes, "BarMore": barMore,
		"Rows": rows, "Notes": notes,
	}); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// done is what the work of each round was.
func done(pairs []pair) string {
	var texts []string
	for _, p := range pairs {
		texts = append(texts, p.done)
	}
	return strings.Join(texts, "; ")
}

// judge fails the test where a bar was missed.
func (r *calmReport) judge(t *testing.T) {
	t.Helper()
	for _, h := range r.heavies {
		if over := mid(r.pairs[h.name], func(p pair) time.Duration { return p.over() }); over > 0 {
			t.Errorf("%s: the p99 of validate is %v above its bar", h.name, over)
		}
	}
}

// writeSection puts a section in the place of the one that was written by the same
// command, or at the end of the file. A section begins with the comment that names
// its command.
func writeSection(t *testing.T, path, section string) {
	t.Helper()
	const mark = "<!-- Written by "
	head, _, _ := strings.Cut(section, ":")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var kept []string
	written := false
	for i, part := range strings.SplitAfter(strings.ReplaceAll("\n"+string(old), "\n"+mark, "\x00"+mark), "\x00") {
		part = strings.Trim(part, "\x00\n")
		switch {
		case part == "" && i == 0:
		case strings.HasPrefix(part, head+":"):
			kept, written = append(kept, section), true
		default:
			kept = append(kept, part)
		}
	}
	if !written {
		kept = append(kept, section)
	}
	for i := range kept {
		kept[i] = strings.TrimRight(kept[i], "\n") + "\n"
	}
	if err := os.WriteFile(path, []byte(strings.Join(kept, "\n")), 0o644); err != nil {
		t.Error(err)
	}
}
