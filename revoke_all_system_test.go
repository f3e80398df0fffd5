//go:build linux && system

package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sessiond/internal/cli"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/store/bolt"
)

// The same as TestRevokeAllSessions, with as many as a large server has.
func TestSystemRevokeAllSessions(t *testing.T) { revokeAll(t, 200_000) }

// A server that is killed while it writes the tombstones of a mass logout has
// forgotten nothing of it: none of its sessions is valid when it is back, and
// each gets its one tombstone, with the reason, and its one event.
func TestSystemRevocationKilled(t *testing.T) {
	const sessions, permanent = 30_000, 100
	h := newHome(t, services(nil))
	if err := os.MkdirAll(h.data, 0o700); err != nil {
		t.Fatal(err)
	}
	var temporary, keys *group
	h.open(t, func(s *stage) {
		temporary, keys = s.issue(t, "app", sessions, false), s.issue(t, "app", permanent, true)
	})

	p := h.start(t)
	staff := hire(t, p)
	admin := newClient(p, staff.admin.AuthToken)
	defer admin.close()
	if n := admin.valid(t, temporary.tokens); n != sessions {
		t.Fatalf("%d of %d sessions are valid before it", n, sessions)
	}
	var done struct{ Revoked, PermanentLeft int }
	begun := time.Now()
	admin.must(t, "revokeAllSessions", params{"level": "server", "exceptCurrent": true, "reason": "drill"}, &done)
	took := time.Since(begun)
	if n := admin.valid(t, temporary.tokens); n != 0 || done.Revoked != sessions+1 || done.PermanentLeft != permanent+1 {
		t.Errorf("%+v, and %d are valid after it", done, n)
	}
	for admin.drilled(t, 10, true) == 0 {
		pause(t, time.Millisecond)
	}
	pause(t, rand.N(150*time.Millisecond)) // a turn of the sweeper is twice as long
	p.kill()
	verified(t, h)
	buried := 0
	h.open(t, func(s *stage) { buried = len(s.tombstones(t, s.store, temporary.tokens, "")) })
	if buried == 0 || buried == sessions {
		t.Fatalf("killed with %d of %d tombstones, which is not in the middle", buried, sessions)
	}

	p = h.start(t)
	again := newClient(p, staff.admin.AuthToken)
	defer again.close()
	if n := again.valid(t, temporary.tokens); n != 0 {
		t.Errorf("%d are valid after the restart", n)
	}
	if n := again.valid(t, keys.tokens); n != permanent {
		t.Errorf("%d of %d API keys are valid after the restart", n, permanent)
	}
	for begun := time.Now(); again.drilled(t, 1000, false) < sessions+1; pause(t, 200*time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatal("the sweep does not come to its end")
		}
	}
	if code, _ := p.terminate(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.output)
	}
	verified(t, h)
	h.open(t, func(s *stage) {
		s.bind("handle:admin", staff.admin.SessionHandle)
		if n := len(s.tombstones(t, s.store, temporary.tokens, "drill")); n != sessions {
			t.Errorf("%d of %d tombstones name the reason", n, sessions)
		}
	})
	t.Logf("%d sessions ended in %v; killed with %d of their tombstones", sessions, took.Round(time.Microsecond), buried)
}

// open lets a test at the data of a server that does not run.
func (h home) open(t *testing.T, do func(s *stage)) {
	t.Helper()
	cfg, err := overShipped(trustedRealms)
	if err != nil {
		t.Fatal(err)
	}
	st, err := bolt.Open(t.Context(), filepath.Join(h.data, cli.DataFile), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	s := &stage{store: st, config: config.NewHolder(cfg), byName: map[string]string{}, byValue: map[string]string{}}
	if s.server, err = assemble(t.Context(), parts{Store: st, Config: s.config, Clock: clock.NewSystem(), Hasher: cheapHasher(t)}); err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()
	do(s)
}

// valid returns how many tokens are valid.
func (c *client) valid(t *testing.T, tokens []string) (n int) {
	t.Helper()
	for ; len(tokens) > 0; tokens = tokens[min(tokensAtOnce, len(tokens)):] {
		var decisions struct{ Results []struct{ Valid bool } }
		c.must(t, "validate", params{"tokenIds": tokens[:min(tokensAtOnce, len(tokens))], "refresh": false}, &decisions)
		for _, d := range decisions.Results {
			if d.Valid {
				n++
			}
		}
	}
	return n
}

// drilled returns how many events tell of an end by the drill, in the whole log or
// among the newest.
func (c *client) drilled(t *testing.T, page int, newest bool) (n int) {
	t.Helper()
	seen := map[string]bool{}
	p := params{"kinds": []event.Kind{event.SessionEnded}, "limit": page}
	if newest {
		p = params{"limit": page}
	}
	for {
		var log struct {
			Events []struct {
				Kind                  event.Kind
				SessionHandle, Reason string
			}
			Cursor string
		}
		c.must(t, "listEvents", p, &log)
		for _, e := range log.Events {
			if e.Kind != event.SessionEnded || e.Reason != "drill" {
				continue
			}
			if seen[e.SessionHandle] {
				t.Errorf("the end of %s is told twice", e.SessionHandle)
			}
			seen[e.SessionHandle] = true
		}
		if newest || log.Cursor == "" {
			return len(seen)
		}
		p["cursor"] = log.Cursor
	}
}
