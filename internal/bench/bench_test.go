//go:build linux && bench

// Package bench measures a server beside what bounds it: validate beside a bare
// fasthttp handler that answers as many bytes, durable creates beside a bare bbolt
// that commits in groups. All runs of one comparison are interleaved, and each
// ratio is the median of the ratios of the rounds, so that neighbours on the
// machine disturb both sides alike. Figures of two runs should not be compared,
// ratios may.
//
// TestBench and TestCalm run under the build tag bench, need two processors, taskset
// and wrk, and take these variables of the environment.
//
//	BENCH_OUT        a file whose section the report takes the place of, besides the output
//	BENCH_ROUNDS     rounds of each comparison, 9
//	BENCH_SESSIONS   sessions in the store, 1,000,000
//	BENCH_SECONDS    seconds of each slice of a round, 3
//
//	CALM_ROUNDS      pairs of each kind of heavy work, 5
//	CALM_SESSIONS    living sessions, 1,000,000
//	CALM_TOMBSTONES  tombstones that are due, 500,000
//	CALM_REVOKED     sessions that are revoked by a filter, 100,000
//	CALM_SECONDS     seconds of a run without heavy work, 15
//	CALM_ONLY        kinds of heavy work, with commas between: listing, count, sorted, crowd, purge, revoke; all unless set
//	CALM_DATA        a folder that keeps the data for the next run of the same numbers within 12 hours
package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// scale is how much is measured.
type scale struct {
	rounds   int
	sessions int
	slice    time.Duration
}

const (
	serverCore, loadCore = "0", "1"

	connections = 64     // of the load, but for creates
	distinct    = 65_536 // requests that the load sends in turn
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleMark); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

func TestBench(t *testing.T) {
	s := scale{knob(t, "BENCH_ROUNDS", 9), knob(t, "BENCH_SESSIONS", 1_000_000), time.Duration(knob(t, "BENCH_SECONDS", 3)) * time.Second}
	r := &report{scale: s}
	phase := phases(t)
	b := build(t)
	phase("build")
	d := fill(t, filepath.Join(t.TempDir(), "data"), s.sessions, r)
	t.Logf("%d sessions of %d accounts: a record has %d bytes, an event %d", s.sessions, d.accounts, d.recordBytes, d.eventBytes)
	phase("fill")
	server := measureStart(t, b, d, r)
	phase("start")
	measureValidate(t, server, d, r)
	phase("validate")
	measureCreate(t, server, d, r)
	phase("create")
	text := r.markdown(t, d)
	fmt.Println(text)
	if out := os.Getenv("BENCH_OUT"); out != "" {
		writeSection(t, fromRoot(t, out), text)
	}
}

// phases returns a function that tells how long each part took.
func phases(t *testing.T) func(name string) {
	begun := time.Now()
	return func(name string) {
		t.Logf("%s: %v", name, time.Since(begun).Round(time.Second))
		begun = time.Now()
	}
}

func knob(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s must be a number above 0", name)
	}
	return n
}

// root is the repository's, as seen from this package.
const root = "../.."

// fromRoot returns a path that is meant to start at the repository's root.
func fromRoot(t *testing.T, path string) string {
	t.Helper()
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(root, path)
}
