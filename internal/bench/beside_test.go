//go:build linux && bench

package bench

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestValidateBesideListings measures what listings cost those who validate: each
// round runs a fixed rate of validate alone, and beside clients that ask for one
// page of sessions after the other. The server has both processors, of which the load
// takes what it needs.
func TestValidateBesideListings(t *testing.T) {
	const rate, clients = 1000, 8
	s := scale{knob(t, "BENCH_ROUNDS", 5), knob(t, "BENCH_SESSIONS", 200_000), time.Duration(knob(t, "BENCH_SECONDS", 3)) * time.Second}
	b := build(t)
	b.cores = serverCore + "," + loadCore
	d := fill(t, filepath.Join(t.TempDir(), "data"), s.sessions, &report{scale: s})
	server, _ := b.serve(t, d.dir)
	lists := []string{`{"api":"session","action":"describeSessions","params":{"limit":1000},"authToken":"` + d.auditor + `"}`}
	validAnswer(t, server, d.ownBodies()[0])

	var p50, p99 []float64
	for round := range s.rounds {
		var quiet, busy []time.Duration
		var pages slice
		runs := []func(){
			func() { quiet = steady(t, server, d.ownBodies(), rate, s.slice) },
			func() {
				var group sync.WaitGroup
				group.Go(func() { pages = load(t, server, lists, clients, s.slice) })
				busy = steady(t, server, d.ownBodies(), rate, s.slice)
				group.Wait()
			},
		}
		for i := range runs {
			runs[(i+round)%len(runs)]() // each comes first in turn
		}
		p50 = append(p50, float64(part(busy, 0.5))/float64(part(quiet, 0.5)))
		p99 = append(p99, float64(part(busy, 0.99))/float64(part(quiet, 0.99)))
		t.Logf("validate alone: p50 %v, p99 %v; beside %.0f pages a second of %.0f bytes: p50 %v, p99 %v",
			part(quiet, 0.5), part(quiet, 0.99), pages.perSecond, pages.bytes, part(busy, 0.5), part(busy, 0.99))
	}
	fmt.Printf("validate beside listings, of validate alone: p50 %.2f, p99 %.2f\n", median(p50), median(p99))
}

// part returns the time that such a part of the requests needed at most.
func part(sorted []time.Duration, of float64) time.Duration {
	return sorted[int(of*float64(len(sorted)-1))]
}

// steady sends so many requests a second, whatever becomes of those before, and
// returns how long after its moment each was answered, sorted.
func steady(t *testing.T, c *child, bodies []string, perSecond int, d time.Duration) []time.Duration {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	took := make([]time.Duration, int(d.Seconds()*float64(perSecond)))
	var group sync.WaitGroup
	begun := time.Now()
	for i := range took {
		moment := begun.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		time.Sleep(time.Until(moment))
		group.Go(func() {
			response, err := client.Post(c.url, "application/json", strings.NewReader(bodies[i%len(bodies)])) //nolint:noctx // loopback, and the server is killed in the end
			if err != nil {
				t.Error(err)
				return
			}
			text, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || !strings.Contains(string(text), `"valid":true`) {
				t.Errorf("validate: %v in %s", err, text)
			}
			took[i] = time.Since(moment)
		})
	}
	group.Wait()
	slices.Sort(took)
	return took
}
