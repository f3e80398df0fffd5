//go:build linux && bench

package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// report is all that was measured.
type report struct {
	scale

	own, gateway inProcess

	emptyBytes, fullBytes, usedBytes int64 // anonymous memory: of an empty server, after the start, after the load
	fileBytes                        int64
	cold, warm                       time.Duration

	answerBytes                                                 int
	bareOwn, bareTwo, validateOwn, bareGateway, validateGateway []slice
	creates                                                     []comparison
}

// page is what the report says, in three sentences and three tables.
var page = template.Must(template.New("page").Parse(`<!-- Written by make bench: BENCH_OUT=docs/performance.md make bench -->
# Performance

Measured on {{.Date}} at commit {{.Commit}} on {{.Machine}}.

The server is pinned to one core and the load (wrk, keep-alive, {{.Connections}} connections) to another; the bare server is fasthttp with a handler
that answers {{.AnswerBytes}} fixed bytes to the same requests, the bare store bbolt with one writer that commits what waits together, records and
events of the server's sizes under keys that grow with time. Each round runs every side once for {{.Slice}}, in turn; figures are medians of
{{.Rounds}} rounds, ratios medians of the rounds' own ratios. Compare ratios, not figures: those depend on the machine and its neighbours.

## validate, random over {{.Sessions}} sessions

| | op/s | op per second of server CPU | of bare, by op/s | of bare, by CPU | p50 | p99 |
|---|---|---|---|---|---|---|
{{range .Validate}}| {{.}} |
{{end}}
What bounds validate, by a profile of the server under this load: reading and writing the socket is half of its time, and
fasthttp's own work a seventh, as in the bare server. Of the rest, two fifths are the token: its checksum, its SHA-256 and a
look at the table, which costs about five cache misses for a session that was not used lately, twice for a gateway; then
come reading the envelope and its params, and writing the answer. A first use within a minute is noted too, to be written
with others. The bare handler does nothing of that, and has one P where the server has two: a server with one P stands
still while the disk syncs.

## Durable creates

| in flight | over HTTP, op/s | bare bbolt in process, op/s | ratio | p50 | p99 |
|---|---|---|---|---|---|
{{range .Creates}}| {{.}} |
{{end}}
What bounds creates: bare bbolt writes 256 records in one sync and does nothing else; a create over HTTP also reads the
account, renders the session's forty members, and logs a line, on the one core that the writer shares. With one in flight
the disk decides.

## Footprint

| | |
|---|---|
{{range .Footprint}}| {{.}} |
{{end}}`))

func (r *report) markdown(t *testing.T, d *data) string {
	t.Helper()
	var text strings.Builder
	if err := page.Execute(&text, map[string]any{
		"Date": time.Now().UTC().Format(time.DateOnly), "Commit": commit(t), "Machine": machine(t, d.dir),
		"Connections": connections, "AnswerBytes": r.answerBytes, "Slice": r.slice, "Rounds": r.rounds, "Sessions": thousands(r.sessions),
		"Validate": r.validate(), "Creates": r.create(), "Footprint": r.footprint(),
	}); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func (r *report) validate() []string {
	row := func(name string, of, bare []slice) string {
		byTime, byCPU := "1", "1"
		if bare != nil {
			byTime = ratio(of, bare, func(s slice) float64 { return s.perSecond })
			byCPU = ratio(of, bare, func(s slice) float64 { return s.perCPU })
		}
		return strings.Join([]string{
			name, thousands(int(mid(of, func(s slice) float64 { return s.perSecond }))), thousands(int(mid(of, func(s slice) float64 { return s.perCPU }))),
			byTime, byCPU, milliseconds(mid(of, func(s slice) time.Duration { return s.p50 })), milliseconds(mid(of, func(s slice) time.Duration { return s.p99 })),
		}, " | ")
	}
	return []string{
		row("bare fasthttp, the first kind of request", r.bareOwn, nil),
		row("**`validate` of one's own token**", r.validateOwn, r.bareOwn),
		row("bare fasthttp with two Ps, as the server runs", r.bareTwo, r.bareOwn),
		row("bare fasthttp, the second kind of request", r.bareGateway, nil),
		row("**`validate` of others' tokens by a gateway**", r.validateGateway, r.bareGateway),
	}
}

func (r *report) create() (rows []string) {
	for _, c := range r.creates {
		ratios := make([]float64, len(c.bare))
		for i := range c.bare {
			ratios[i] = c.overHTTP[i].perSecond / c.bare[i]
		}
		rows = append(rows, fmt.Sprintf("%d | %s | %s | %.2f | %s | %s", c.flight,
			thousands(int(mid(c.overHTTP, func(s slice) float64 { return s.perSecond }))), thousands(int(median(c.bare))), median(ratios),
			milliseconds(mid(c.overHTTP, func(s slice) time.Duration { return s.p50 })), milliseconds(mid(c.overHTTP, func(s slice) time.Duration { return s.p99 }))))
	}
	return rows
}

func (r *report) footprint() []string {
	perSession := func(bytes int64) string {
		return fmt.Sprintf("%.0f bytes", float64(bytes-r.emptyBytes)/float64(r.sessions))
	}
	perMillion := func(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()/float64(r.sessions)*1e6) }
	return []string{
		"anonymous memory per session, after the start | " + perSession(r.fullBytes),
		"anonymous memory per session, after the rounds of validate | " + perSession(r.usedBytes),
		fmt.Sprintf("anonymous memory of an empty server | %.1f MiB", float64(r.emptyBytes)/(1<<20)),
		fmt.Sprintf("the file, per session with its event and its part of an account | %.0f bytes", float64(r.fileBytes)/float64(r.sessions)),
		"start-up per million sessions, file in the page cache | " + perMillion(r.warm),
		"start-up per million sessions, file not in the page cache | " + perMillion(r.cold),
		fmt.Sprintf("allocations per `validate`: own token, by a gateway | %.1f, %.1f", r.own.allocations, r.gateway.allocations),
		fmt.Sprintf("one `validate` without network or pinning: own token, by a gateway | %.0f ns, %.0f ns", r.own.nanoseconds, r.gateway.nanoseconds),
	}
}

// mid returns the median of one figure of some slices.
func mid[S any, T interface{ ~int64 | ~float64 }](slices []S, figure func(S) T) T {
	values := make([]T, len(slices))
	for i, s := range slices {
		values[i] = figure(s)
	}
	return median(values)
}

// ratio returns the median of the rounds' ratios.
func ratio(of, to []slice, figure func(slice) float64) string {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = figure(of[i]) / figure(to[i])
	}
	return fmt.Sprintf("%.2f", median(ratios))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}

// thousands writes a number as people read it.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// commit names what was measured.
func commit(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// machine describes the machine, and the file system of a folder.
func machine(t *testing.T, dir string) string {
	t.Helper()
	var kernel syscall.Utsname
	var fs syscall.Statfs_t
	if err := syscall.Uname(&kernel); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	var release strings.Builder
	for _, c := range kernel.Release {
		if c == 0 {
			break
		}
		release.WriteByte(byte(c))
	}
	names := map[uint32]string{0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x01021994: "tmpfs, which is no disk", 0x794C7630: "overlayfs"}
	name := names[uint32(fs.Type)]
	if name == "" {
		name = fmt.Sprintf("a file system of type %#x", fs.Type)
	}
	return fmt.Sprintf("%d cores (%s), Linux %s, %s, %s", runtime.NumCPU(), cpuModel(t), release.String(), name, runtime.Version())
}

func cpuModel(t *testing.T) string {
	t.Helper()
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
