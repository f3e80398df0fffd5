//go:build linux && bench

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/internal/cli"
	"sessiond/internal/clock"
	"sessiond/internal/session"
	"sessiond/store/bolt"
)

// calmData is a data folder that was used for months.
type calmData struct {
	dir string

	Scale         [3]int // sessions, tombstones, revoked
	Filled        time.Time
	Issuer        string // a token
	LastTombstone string // handle
	Tokens        []string
}

// calmFill makes the data, or takes those that an earlier run has kept under
// CALM_DATA: sessions that ended of themselves 60 days ago, and many that live, a
// part of them of accounts that are to be thrown out.
func calmFill(t *testing.T, s calmScale) *calmData {
	t.Helper()
	parent := os.Getenv("CALM_DATA")
	if parent == "" {
		parent = t.TempDir()
	}
	d := &calmData{dir: filepath.Join(parent, "data"), Scale: [3]int{s.sessions, s.tombstones, s.revoked}, Filled: time.Now()}
	notes := filepath.Join(parent, "tokens.json")
	if text, err := os.ReadFile(notes); err == nil {
		kept := &calmData{dir: d.dir}
		if err := json.Unmarshal(text, kept); err == nil && kept.Scale == d.Scale && time.Since(kept.Filled) < 12*time.Hour {
			return kept
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(d.dir), os.MkdirAll(d.dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	d.fill(t, s)
	text, err := json.Marshal(d)
	if err == nil {
		err = os.WriteFile(notes, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *calmData) fill(t *testing.T, s calmScale) {
	t.Helper()
	const past = 60 * 24 * time.Hour
	path := filepath.Join(d.dir, cli.DataFile)
	old := clock.NewFake(time.Now().Add(-past))
	d.inStore(t, path, old, func(dom *domain) {
		tokens := d.create(t, dom, s.tombstones, func(n int) string { return username(n % max(1, s.sessions/sessionsPerAccount)) })
		old.Advance(48 * time.Hour)
		progress("fill: %d sessions of long ago; now their tombstones", len(tokens))
		if err := dom.sessions.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		last := ""
		for _, token := range tokens {
			if h, ok := session.Locate(token); ok {
				last = max(last, session.HandleText(h))
			}
		}
		d.LastTombstone = last
	})
	d.inStore(t, path, clock.NewSystem(), func(dom *domain) {
		d.Issuer = dom.staff(t, "issuer")
		every := max(1, s.sessions/max(1, s.revoked))
		living := s.sessions - 1 // one is the issuer's
		accounts := max(1, s.sessions/sessionsPerAccount)
		tokens := d.create(t, dom, living, func(n int) string {
			if n%every == 0 && n/every < s.revoked {
				return fmt.Sprintf("leaver-%07d", n/every%max(1, s.revoked/sessionsPerAccount))
			}
			return username(n % accounts)
		})
		for n, token := range tokens {
			if n%every != 0 || n/every >= s.revoked {
				d.Tokens = append(d.Tokens, token)
			}
		}
		rand.Shuffle(len(d.Tokens), func(i, j int) { d.Tokens[i], d.Tokens[j] = d.Tokens[j], d.Tokens[i] })
		d.Tokens = d.Tokens[:min(len(d.Tokens), distinct)]
	})
}

// inStore assembles a server without its doors on a store, for a while.
func (d *calmData) inStore(t *testing.T, path string, now clock.Clock, do func(*domain)) {
	t.Helper()
	st, err := bolt.Open(t.Context(), path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	dom := assemble(t, st, now)
	defer dom.close()
	do(dom)
}

// create makes sessions and returns their tokens.
func (d *calmData) create(t *testing.T, dom *domain, n int, username func(int) string) []string {
	t.Helper()
	tokens := make([]string, n)
	var next atomic.Int64
	var group sync.WaitGroup
	for range builders {
		group.Go(func() {
			for !t.Failed() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				tokens[i] = dom.create(t, username(i))
				if i%100_000 == 99_999 {
					progress("fill: %s sessions", thousands(i+1))
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return tokens
}

// validates are requests about random callers' own tokens.
func (d *calmData) validates() []string {
	bodies := make([]string, len(d.Tokens))
	for i, token := range d.Tokens {
		bodies[i] = `{"api":"session","action":"validate","authToken":"` + token + `"}`
	}
	rand.Shuffle(len(bodies), func(i, j int) { bodies[i], bodies[j] = bodies[j], bodies[i] })
	return bodies
}

// creates are log-ins, for whom an issuer vouches.
func (d *calmData) creates() []string {
	bodies := make([]string, 10_000)
	for i := range bodies {
		bodies[i] = `{"api":"session","action":"createSession","params":{"realm":"app","username":"` + username(i%max(1, d.Scale[0]/sessionsPerAccount)) + `"},"authToken":"` + d.Issuer + `"}`
	}
	return bodies
}
