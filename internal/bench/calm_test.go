//go:build linux && bench

package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// calmScale is how much TestCalm measures.
type calmScale struct {
	rounds     int
	sessions   int
	tombstones int
	revoked    int
	alone      time.Duration // a run without the work, and the least of one beside it
}

// calmRate is how many validates a second are to be calm.
const calmRate = 200

// bar is what the p99 of validate may be beside heavy work: so many times, or so
// much more than, what it is alone.
const (
	barTimes = 1.5
	barMore  = 5 * time.Millisecond
)

// A heavy is a kind of work that validate is measured beside.
type heavy struct {
	name    string
	about   string // what is done, as the report has it
	spoils  bool   // each round needs the data as they were
	repeats bool   // until the time is over
	changes bool   // creates and ends are measured beside it, too
	do      func(t *testing.T, r *calmRun) (done string)
}

func heavies(s calmScale) []heavy {
	return []heavy{
		{"listing", "`describeSessions` over " + thousands(s.sessions) + " sessions, page after page of 1,000", false, false, false, listAll},
		{"count", "`countOnly` with a filter that looks at each session's record", false, true, false, countFound},
		{"sorted", "a page of 1,000, the least recently used of all first", false, true, false, sortedPage},
		{"crowd", "50 clients that ask for pages of 1,000", false, false, false, crowd},
		{"purge", "a purge of " + thousands(s.tombstones) + " tombstones and their events, beside 20 creates and ends a second", true, false, true, purgeAll},
		{"revoke", "`revokeSessions` by a filter that finds " + thousands(s.revoked) + " of them, repeated until all are ended", true, false, false, revokeFound},
	}
}

// A calmRun is a server under work.
type calmRun struct {
	calmScale
	server *child
	data   *calmData
	config string // path of its services.json
	until  time.Time

	operator string // token
}

// A pair is what one round has measured.
type pair struct {
	alone, beside beat
	took          time.Duration // the work
	done          string
	cpu           float64 // processors that the server kept busy beside the work
	grown         int64   // bytes of anonymous memory at the most, above those before
}

// A beat is the measure of one run.
type beat struct {
	answers       times         // of validate
	creates, ends time.Duration // p99, where they are measured
}

// over is by how much the p99 of validate beside the work is above its bar.
func (p *pair) over() time.Duration {
	alone := p.alone.answers.p99
	return p.beside.answers.p99 - max(time.Duration(float64(alone)*barTimes), alone+barMore)
}

func TestCalm(t *testing.T) {
	s := calmScale{
		knob(t, "CALM_ROUNDS", 5), knob(t, "CALM_SESSIONS", 1_000_000), knob(t, "CALM_TOMBSTONES", 500_000), knob(t, "CALM_REVOKED", 100_000),
		time.Duration(knob(t, "CALM_SECONDS", 15)) * time.Second,
	}
	phase, busy := phases(t), loadAverage(t)
	b := build(t)
	b.cores = serverCore + "," + loadCore
	d := calmFill(t, s)
	phase("fill")
	report := calmReport{calmScale: s, pairs: map[string][]pair{}, busy: busy}
	for _, h := range heavies(s) {
		if only := os.Getenv("CALM_ONLY"); only != "" && !strings.Contains(","+only+",", ","+h.name+",") {
			continue
		}
		report.heavies = append(report.heavies, h)
		report.pairs[h.name] = measurePairs(t, b, d, s, h)
		phase(h.name)
	}
	text := report.markdown(t, d.dir)
	fmt.Println(text)
	if out := os.Getenv("BENCH_OUT"); out != "" {
		writeSection(t, fromRoot(t, out), text)
	}
	report.judge(t)
}

func measurePairs(t *testing.T, b builder, d *calmData, s calmScale, h heavy) (pairs []pair) {
	t.Helper()
	var r *calmRun
	for round := range s.rounds {
		if r == nil || h.spoils {
			r = startCalm(t, b, d, s, h.spoils)
		}
		p := r.pair(t, h, round%2 == 1)
		pairs = append(pairs, p)
		progress("%s %d of %d: %s in %v with %.2f processors, memory +%d MiB; validate p50 %v p99 %v alone, p50 %v p99 %v max %v beside (%+v of the bar)",
			h.name, round+1, s.rounds, p.done, p.took.Round(time.Millisecond), p.cpu, p.grown>>20,
			tenths(p.alone.answers.p50), tenths(p.alone.answers.p99), tenths(p.beside.answers.p50), tenths(p.beside.answers.p99), tenths(p.beside.answers.max), tenths(p.over()))
		if h.changes {
			progress("%s %d of %d: creates p99 %v alone, %v beside; ends p99 %v alone, %v beside", h.name, round+1, s.rounds,
				tenths(p.alone.creates), tenths(p.beside.creates), tenths(p.alone.ends), tenths(p.beside.ends))
		}
		if h.spoils || round == s.rounds-1 {
			r.server.stop(t)
			r.remove(t, h.spoils)
		}
	}
	return pairs
}

// progress tells who waits how far it is.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func tenths(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// startCalm starts a server on the data, or on a copy of them. It keeps all that
// there is until it is told otherwise.
func startCalm(t *testing.T, b builder, d *calmData, s calmScale, copied bool) *calmRun {
	t.Helper()
	r := &calmRun{calmScale: s, data: d}
	dir := d.dir
	if copied {
		dir = filepath.Join(t.TempDir(), "copy")
		if out, err := exec.CommandContext(t.Context(), "cp", "-r", "--reflink=auto", d.dir, dir).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		syscall.Sync()
	}
	r.data = &calmData{}
	*r.data = *d
	r.data.dir = dir
	r.config = b.config
	r.retain(t, "100", "year")
	r.server, _ = b.serve(t, dir)
	r.logIn(t)
	return r
}

// logIn gives the operator a session of now: to end many of others, a log-in has to be
// recent.
func (r *calmRun) logIn(t *testing.T) {
	t.Helper()
	var session struct{ AuthToken string }
	if code := r.post(t, "createSession", `{"username":"admin","password":"`+adminPassword+`"}`, &session); code != 0 {
		t.Fatalf("the operator cannot log in: %d", code)
	}
	r.operator = session.AuthToken
}

// retain writes how long the server is to keep what has ended.
func (r *calmRun) retain(t *testing.T, period, unit string) {
	t.Helper()
	text := strings.Replace(servicesJSON, `"jsonActionApiDefaults": {`, `"jsonActionApiDefaults": {"defaultRetentionPeriod": `+period+`, "defaultRetentionUnit": "`+unit+`",`, 1)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *calmRun) remove(t *testing.T, copied bool) {
	t.Helper()
	if copied {
		if err := os.RemoveAll(r.data.dir); err != nil {
			t.Error(err)
		}
	}
}

// pair measures validate alone and beside the work, or the other way round.
func (r *calmRun) pair(t *testing.T, h heavy, besideFirst bool) (p pair) {
	t.Helper()
	validates := startPacer(t, r.server, r.data.validates(), "", calmRate)
	defer validates.kill()
	all := []*pacer{validates}
	if h.changes {
		changes := startPacer(t, r.server, r.data.creates(), `{"api":"session","action":"deleteSession","authToken":"%s"}`, 20)
		defer changes.kill()
		all = append(all, changes)
	}
	run := func(work func()) (sum beat) {
		for _, p := range all {
			p.say(t, "run")
		}
		work()
		for _, p := range all {
			p.say(t, "stop")
		}
		for i, p := range all {
			if heard := p.hear(t); i == 0 {
				sum.answers = heard.answers
			} else {
				sum.creates, sum.ends = heard.answers.p99, heard.ends.p99
			}
		}
		return sum
	}
	alone := func() { p.alone = run(func() { time.Sleep(r.alone) }) }
	beside := func() {
		memory := r.watchMemory(t)
		cpu, begun := r.server.cpu(t), time.Now()
		r.until = begun.Add(r.alone)
		p.beside = run(func() {
			for n := 0; ; n++ {
				if p.done = h.do(t, r); !h.repeats || time.Now().After(r.until) {
					p.took = time.Since(begun)
					if h.repeats {
						p.took /= time.Duration(n + 1)
					}
					return
				}
			}
		})
		p.cpu = (r.server.cpu(t) - cpu).Seconds() / time.Since(begun).Seconds()
		p.grown = memory()
	}
	if besideFirst {
		beside()
		alone()
	} else {
		alone()
		beside()
	}
	return p
}

// watchMemory watches the server's anonymous memory until it is asked how far that
// grew.
func (r *calmRun) watchMemory(t *testing.T) (grown func() int64) {
	before := r.server.anonymous(t)
	most, stop, stopped := before, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if now, err := r.server.memory(); err == nil { // else it has ended, which others see
					most = max(most, now)
				}
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-stopped
		return most - before
	}
}

// post sends a request of the operator's and reads what is wanted of the answer.
func (r *calmRun) post(t *testing.T, action, params string, result any) (errorCode int) {
	t.Helper()
	body := fmt.Sprintf(`{"api":"admin","action":%q,"params":%s,"authToken":%q}`, action, params, r.operator)
	response, err := http.Post(r.server.url, "application/json", strings.NewReader(body)) //nolint:noctx // loopback, and the server is killed in the end
	if err != nil {
		t.Fatalf("%s: %v\n%s", action, err, r.server.tail())
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	// A page is not decoded: whoever sent the request would need the processor for that.
	if cursor, ok := result.(*string); ok && strings.Contains(string(text[max(0, len(text)-512):]), `"errorCode":0,`) {
		*cursor = ""
		if _, rest, ok := strings.Cut(string(text[max(0, len(text)-512):]), `"cursor":"`); ok {
			*cursor, _, _ = strings.Cut(rest, `"`)
		}
		return 0
	}
	var answer struct {
		Result       json.RawMessage
		ErrorCode    int
		ErrorMessage string
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s: %v", action, err)
	}
	if answer.ErrorCode != 0 {
		progress("%s: %d %s", action, answer.ErrorCode, answer.ErrorMessage)
		return answer.ErrorCode
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		t.Fatalf("%s: %v", action, err)
	}
	return 0
}

// listAll reads all pages.
func listAll(t *testing.T, r *calmRun) string {
	cursor, pages := "", 0
	for {
		params := `{"limit":1000}`
		if cursor != "" {
			params = `{"limit":1000,"cursor":"` + cursor + `"}`
		}
		if code := r.post(t, "describeSessions", params, &cursor); code != 0 {
			t.Fatalf("page %d: %d", pages, code)
		}
		if pages++; cursor == "" {
			return fmt.Sprintf("%d pages", pages)
		}
	}
}

// countFound counts by a filter that no index knows.
func countFound(t *testing.T, r *calmRun) string {
	var answer struct{ Count int }
	if code := r.post(t, "listSessions", `{"countOnly":true,"filter":"maskedToken co \"A\" or idleCursorTimeoutSeconds lt 0"}`, &answer); code != 0 {
		return fmt.Sprintf("refused with %d", code)
	}
	if answer.Count == 0 {
		t.Error("nothing was counted")
	}
	return fmt.Sprintf("%d counted", answer.Count)
}

func sortedPage(t *testing.T, r *calmRun) string {
	cursor := ""
	if code := r.post(t, "listSessions", `{"sort":"sessionLastAccessedTimestamp"}`, &cursor); code != 0 {
		return fmt.Sprintf("refused with %d", code)
	}
	if cursor == "" {
		t.Error("a sorted page has no cursor")
	}
	return "one page"
}

// crowd is many clients who ask for pages as fast as they are answered. Nobody
// looks at those: that would take the processor from the server.
func crowd(t *testing.T, r *calmRun) string {
	body := `{"api":"session","action":"describeSessions","params":{"limit":1000},"authToken":"` + r.operator + `"}`
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	var pages, refused atomic.Int64
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			for time.Now().Before(r.until) {
				response, err := client.Post(r.server.url, "application/json", strings.NewReader(body)) //nolint:noctx // loopback, and the server is killed in the end
				if err == nil {
					_, err = io.Copy(io.Discard, response.Body)
					_ = response.Body.Close()
				}
				switch {
				case err != nil:
					t.Errorf("a page: %v", err)
					return
				case response.StatusCode == http.StatusOK:
					pages.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	group.Wait()
	return fmt.Sprintf("%.0f pages a second, %d requests refused", float64(pages.Load())/r.alone.Seconds(), refused.Load())
}

// purgeAll has the retention shortened, and waits until nothing is left that is
// older.
func purgeAll(t *testing.T, r *calmRun) string {
	begun := time.Now()
	r.retain(t, "4", "week")
	if err := r.server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	var tombstones time.Duration
	for deadline := begun.Add(20 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		var page struct{ Sessions []json.RawMessage }
		if tombstones == 0 {
			if r.post(t, "listSessions", `{"sessionHandles":["`+r.data.LastTombstone+`"]}`, &page); len(page.Sessions) > 0 {
				continue
			}
			tombstones = time.Since(begun)
		}
		var log struct {
			Events []struct{ Timestamp time.Time }
		}
		if r.post(t, "listEvents", `{"oldestFirst":true,"limit":1}`, &log); len(log.Events) > 0 && time.Since(log.Events[0].Timestamp) < 4*7*24*time.Hour {
			return fmt.Sprintf("tombstones after %v", tombstones.Round(100*time.Millisecond))
		}
	}
	t.Fatal("the purge does not end")
	return ""
}

// revokeFound ends what a filter finds, in as many requests as that needs.
func revokeFound(t *testing.T, r *calmRun) string {
	total, requests := 0, ""
	for {
		var answer struct {
			Revoked int
			More    bool
		}
		if code := r.post(t, "revokeSessions", `{"filter":"username sw \"leaver-\""}`, &answer); code != 0 {
			t.Fatalf("revokeSessions: %d", code)
		}
		total += answer.Revoked
		requests += " " + thousands(answer.Revoked)
		if !answer.More {
			break
		}
	}
	if total != r.revoked {
		t.Errorf("%d sessions were revoked, not %d", total, r.revoked)
	}
	return "requests ended" + requests
}
