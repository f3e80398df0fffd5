package session_test

import (
	"testing"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// Whatever is done to a session, nothing is known of it alive from its wall on,
// which is at most what was asked for after its creation.
func TestNothingLivesPastItsWall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := unlimited()
		c.Defaults.ExpiryJitterPercent = rapid.Int64Range(0, 25).Draw(t, "jitter")
		c.Defaults.IdleToleranceSeconds = rapid.SampledFrom([]int64{0, 1, 60, 600}).Draw(t, "tolerance")
		c.Defaults.RotationGraceSeconds = 3600
		w := newWorld(t, c)
		asked := rapid.Int64Range(1, 500).Draw(t, "lifetime")
		isKey := rapid.Bool().Draw(t, "permanent")
		idleTime := rapid.SampledFrom([]int64{0, 1, 50, 1000}).Draw(t, "idle")
		if isKey {
			idleTime = 0
		}
		v, token := w.issued("ann", lifetime(asked), idle(idleTime), func(n *session.NewSession) { n.Permanent = isKey })
		tokens, wall := []string{token}, v.MaxAt
		if longest, shortest := v.Created+asked, v.Created+asked-asked*c.Defaults.ExpiryJitterPercent/100; wall > longest || wall < shortest || isKey && wall != longest {
			t.Fatalf("it lives for %d s, %d were asked for", wall-v.Created, asked)
		}
		dead := false
		t.Repeat(map[string]func(*rapid.T){
			"touch":   func(*rapid.T) { w.Touch(v.Handle) },
			"use":     func(*rapid.T) { w.Authenticate(tokens[len(tokens)-1], true) },
			"advance": func(t *rapid.T) { w.advance(rapid.Int64Range(1, 60).Draw(t, "seconds")) },
			"back":    func(t *rapid.T) { w.advance(-rapid.Int64Range(1, 60).Draw(t, "seconds")) },
			"to the wall": func(t *rapid.T) {
				w.advance(max(0, wall-w.unix()+rapid.Int64Range(-1, 1).Draw(t, "offset")))
			},
			"alter": func(t *rapid.T) {
				seconds := rapid.Int64Range(0, 1000).Draw(t, "idle")
				_, _ = w.Alter(w.ctx(), v.Handle, event.Actor{}, func(r *session.Record) error { // it may be dead
					if !isKey {
						r.IdleSeconds = seconds
					}
					r.MaxSeconds, r.Created, r.LastAccess = 0, r.Created+100, r.LastAccess+1000
					return nil
				})
			},
			"rotate": func(*rapid.T) {
				if _, next, err := w.Rotate(w.ctx(), api.NewSecret(tokens[len(tokens)-1]), event.Actor{}); err == nil {
					tokens = append(tokens, next.Reveal())
				}
			},
			"maintain": func(*rapid.T) { w.maintain() },
			"restart": func(*rapid.T) {
				w.maintain()
				w.restart()
			},
			"": func(t *rapid.T) {
				past := w.unix() >= wall
				if dead = dead || past; !dead {
					return
				}
				for _, token := range tokens {
					if w.lives(token) {
						t.Fatalf("%d s after its wall, dead before: %v, it lives", w.unix()-wall, !past)
					}
				}
				if view, err := w.Get(w.ctx(), v.Handle); err != nil || view.Live || view.Status() <= session.Active {
					t.Fatalf("it is shown as %v, %v", view.Status(), err)
				}
				if n := w.Count(); n != 0 || len(w.OfAccount(v.AccountID)) != 0 {
					t.Fatalf("%d are counted, %d listed", n, len(w.OfAccount(v.AccountID)))
				}
			},
		})
		w.maintain()
		if dead {
			if r, err := w.tombstone(v.Handle); err != nil || r.End.At > wall {
				t.Fatalf("the tombstone says %+v, %v: its wall was %d", r, err, wall)
			}
		}
	})
}

// Sessions of one moment end at different ones, none after what was asked for.
func TestJitterSpreadsExpiry(t *testing.T) {
	c := unlimited()
	c.Defaults.ExpiryJitterPercent = 25
	w := newWorld(t, c)
	const n, asked = 400, 1000
	ends := map[int64]int{}
	for range n {
		v, _ := w.issued("ann", lifetime(asked))
		if v.MaxSeconds > asked || v.MaxSeconds < asked*3/4 || v.MaxAt != v.Created+v.MaxSeconds || v.IdleAt != 0 {
			t.Fatalf("it lives for %d s, until %d", v.MaxSeconds, v.MaxAt)
		}
		ends[(asked-v.MaxSeconds)/50]++ // 0 to 5: the last holds one second alone
	}
	for part := range int64(5) {
		if ends[part] < n/5/4 {
			t.Errorf("of %d sessions, %d are cut by %d to %d s", n, ends[part], 50*part, 50*part+49)
		}
	}
	if v, _ := w.issued("ann", lifetime(asked), permanent); v.MaxSeconds != asked {
		t.Errorf("an API key lives for %d s", v.MaxSeconds)
	}
	if v, _ := w.issued("ann", lifetime(3)); v.MaxSeconds != 3 {
		t.Errorf("of 3 s, %d are left: a quarter is none", v.MaxSeconds)
	}
	if v, _ := w.issued("ann", idle(60)); v.MaxSeconds != 0 || v.IdleSeconds != 60 {
		t.Errorf("without a lifetime it has one of %d s, and an idle time of %d s", v.MaxSeconds, v.IdleSeconds)
	}
}

// A use within the tolerance begins another idle time. What is shown leaves the
// tolerance out, the end does not; and it is the session's own, whatever becomes of
// the configuration.
func TestTolerance(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		c := unlimited()
		c.Defaults.IdleToleranceSeconds = 30
		w := newWorld(t, c)
		v, token := w.issued("ann", idle(100))
		key, _ := w.issued("ann", permanent)
		again := func() {
			if restarts {
				w.maintain()
				w.restart()
			}
		}
		c.Defaults.IdleToleranceSeconds = 0
		start := w.unix()
		w.advance(129)
		again()
		if live, ok := w.Authenticate(token, false); !ok || live.IdleAt != start+100 {
			t.Fatalf("in its tolerance it lives: %v, and idles out at %d", ok, live.IdleAt-start)
		}
		live, ok := w.Authenticate(token, true)
		if again(); !ok || live.LastAccess != start+129 {
			t.Fatalf("it is used: %v, last at %d", ok, live.LastAccess-start)
		}
		if view, err := w.Get(t.Context(), v.Handle); err != nil || view.IdleAt != start+229 || view.IdleEnd() != start+259 {
			t.Errorf("it shows %d and %d, %v", view.IdleAt-start, view.IdleEnd()-start, err)
		}
		if _, err := w.Alter(t.Context(), v.Handle, event.Actor{}, func(r *session.Record) error { r.IdleSeconds = 50; return nil }); err != nil {
			t.Error(err)
		}
		w.advance(79)
		if again(); !w.lives(token) {
			t.Error("the tolerance is lost with another idle time")
		}
		w.advance(1)
		if again(); w.lives(token) {
			t.Error("it outlives its tolerance")
		}
		w.maintain()
		if r, err := w.tombstone(v.Handle); err != nil || r.End != (session.End{Status: session.Expired, At: start + 209, Reason: session.ReasonIdle}) {
			t.Errorf("the tombstone says %+v, %v", r.End, err)
		}
		if view, err := w.Get(t.Context(), key.Handle); err != nil || view.Tolerance != 0 || view.IdleEnd() != 0 {
			t.Errorf("the API key has a tolerance of %d s, %v", view.Tolerance, err)
		}
	}
}

// The last use of a session is written when it is further from what the store has
// than the accuracy asked for, or a quarter of a shorter idle time. After a crash,
// not more than that is lost.
func TestHowOftenTheLastUseIsWritten(t *testing.T) {
	for _, tt := range []struct{ frequency, idle, period int64 }{
		{1, 3600, 1},
		{60, 3600, 60},
		{60, 0, 60},
		{86_400, 0, 86_400},
		{86_400, 86_400 * 8, 86_400},
		{86_400, 3600, 900},
		{60, 240, 60},
		{60, 239, 59},
		{60, 4, 1},
		{60, 3, 0},
		{1, 1, 0},
		{1, 4, 1},
	} {
		c := unlimited()
		c.Defaults.LatestAccessSeconds = tt.frequency
		w := newWorld(t, c)
		v, token := w.issued("ann", idle(tt.idle))
		if got := w.Accuracy(tt.idle); got != tt.period {
			t.Errorf("%+v: the accuracy is %d s", tt, got)
		}
		written := v.Created
		for _, after := range []int64{tt.period - 1, tt.period, tt.period + 1} {
			if after <= w.unix()-v.Created {
				continue
			}
			w.advance(v.Created + after - w.unix())
			if tt.idle != 0 && after >= tt.idle {
				break
			}
			w.Authenticate(token, true)
			if err := w.FlushTouches(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after-(written-v.Created) >= tt.period {
				written = v.Created + after
			}
			crashed := newWorldOn(t, c, w.inner, w.inner)
			crashed.advance(w.unix() - crashed.unix())
			if live, ok := crashed.Authenticate(token, false); !ok || live.LastAccess != written {
				t.Errorf("%+v: used after %d s, it lives after a crash: %v, used last after %d s, want %d", tt, after, ok, live.LastAccess-v.Created, written-v.Created)
			}
			crashed.Close()
		}
	}
}
