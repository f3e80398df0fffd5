package account

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/alexedwards/argon2id"

	"sessiond/internal/api"
)

func TestHashAndVerify(t *testing.T) {
	h := cheapHasher(t)
	password := api.NewSecret("correct horse battery")
	phc, err := h.Hash(t.Context(), Lane{}, password)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPHC(phc.Reveal()); err != nil {
		t.Errorf("what Hash writes is refused when it is read: %v", err)
	}
	for _, tt := range []struct {
		why           string
		password, phc api.Secret
		want          bool
	}{
		{"the same password", password, phc, true},
		{"another password", api.NewSecret("correct horse batterz"), phc, false},
		{"no hash", password, api.Secret{}, false},
		{"no password", api.Secret{}, phc, false},
		{"neither", api.Secret{}, api.Secret{}, false},
	} {
		before := h.Runs()
		got, err := h.Verify(t.Context(), Lane{}, tt.password, tt.phc)
		if err != nil || got != tt.want {
			t.Errorf("%s: %t, %v; want %t", tt.why, got, err, tt.want)
		}
		if runs := h.Runs() - before; runs != 1 {
			t.Errorf("%s: %d hashes, want 1", tt.why, runs)
		}
	}
}

func TestTheDefaultCost(t *testing.T) {
	h := NewHasher(1, 1)
	defer h.Close()
	if want := "$argon2id$v=19$m=19456,t=2,p=1$"; !strings.HasPrefix(h.decoy, want) {
		t.Errorf("hashes begin with %.40s, want %s", h.decoy, want)
	}
	if err := checkPHC(h.decoy); err != nil {
		t.Errorf("the decoy is refused: %v", err)
	}
}

func TestStoredHashesAreBoundedBeforeAnyWork(t *testing.T) {
	const salt, key = "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	h := cheapHasher(t)
	for why, phc := range map[string]string{
		"too much memory":    "$argon2id$v=19$m=131073,t=2,p=1$" + salt + "$" + key,
		"all memory":         "$argon2id$v=19$m=4294967295,t=1,p=1$" + salt + "$" + key,
		"too many passes":    "$argon2id$v=19$m=64,t=11,p=1$" + salt + "$" + key,
		"no pass":            "$argon2id$v=19$m=64,t=0,p=1$" + salt + "$" + key,
		"too many lanes":     "$argon2id$v=19$m=64,t=1,p=5$" + salt + "$" + key,
		"no lane":            "$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + key,
		"too little memory":  "$argon2id$v=19$m=7,t=1,p=1$" + salt + "$" + key,
		"no salt":            "$argon2id$v=19$m=64,t=1,p=1$$" + key,
		"no key":             "$argon2id$v=19$m=64,t=1,p=1$" + salt + "$",
		"a long key":         "$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + strings.Repeat("A", 88),
		"another variant":    "$argon2i$v=19$m=64,t=1,p=1$" + salt + "$" + key,
		"another version":    "$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + key,
		"something behind":   "$argon2id$v=19$m=64,t=1,p=1x$" + salt + "$" + key,
		"a newline":          "$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key + "\n",
		"another algorithm":  "$2b$12$abcdefghijklmnopqrstuv",
		"the password plain": "correct horse battery",
	} {
		if ok, err := h.Verify(t.Context(), Lane{}, api.NewSecret("correct horse battery"), api.NewSecret(phc)); ok || err == nil {
			t.Errorf("%s: Verify = %t, %v", why, ok, err)
		}
	}
	if h.Runs() != 0 {
		t.Errorf("%d hashes were begun", h.Runs())
	}
}

// What passes is within bounds, and is written in no other way.
func FuzzPHC(f *testing.F) {
	h := NewHasherCost(1, 1, Cost{MemoryKiB: 64, Iterations: 1, Parallelism: 1})
	f.Cleanup(h.Close)
	f.Add(h.decoy)
	f.Add(strings.Replace(h.decoy, "m=64", "m=+64", 1))
	f.Add(strings.Replace(h.decoy, "m=64", "m=0064", 1))
	f.Add(strings.Replace(h.decoy, "m=64", "m=999999999", 1))
	f.Add("$argon2id$v=19$m=64,t=1,p=1$\n$")
	f.Fuzz(func(t *testing.T, phc string) {
		if checkPHC(phc) != nil {
			return
		}
		p, salt, key, err := argon2id.DecodeHash(phc)
		if err != nil {
			t.Fatalf("%q passes, but cannot be decoded: %v", phc, err)
		}
		if p.Memory > 128<<10 || p.Memory < 8 || p.Iterations > 10 || p.Iterations < 1 || p.Parallelism > 4 || p.Parallelism < 1 || len(salt) > 64 || len(key) > 64 {
			t.Fatalf("%q passes with %+v", phc, p)
		}
		if again := formatPHC(p, salt, key); again != phc {
			t.Fatalf("%q is written %q", phc, again)
		}
	})
}

func TestNoMoreHashesRunThanThereAreWorkers(t *testing.T) {
	h := NewHasherCost(2, 64, cheap)
	defer h.Close()
	var running, most atomic.Int32
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			err := h.do(t.Context(), Lane{Familiar: true}, func(*worker) {
				n := running.Add(1)
				defer running.Add(-1)
				for {
					seen := most.Load()
					if n <= seen || most.CompareAndSwap(seen, n) {
						break
					}
				}
				_, _ = argon2id.CreateHash("x", &h.params)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > 2 {
		t.Errorf("%d hashes ran at once on 2 workers", most.Load())
	}
	if h.Runs() != 40 {
		t.Errorf("%d hashes ran, want 40", h.Runs())
	}
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHasherCost(1, 2, cheap)
		release := make(chan struct{})
		var wg sync.WaitGroup
		for range 3 { // one runs, two wait
			wg.Go(func() {
				if err := h.do(t.Context(), Lane{Familiar: true}, func(*worker) { <-release }); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		_, err := h.Hash(t.Context(), Lane{Familiar: true}, api.NewSecret("x"))
		if e := api.FromError(err); e.Code != api.Overloaded || e.Data.RetryAfterSeconds < 1 {
			t.Errorf("a fourth gets %v after %d s, want %d with a time to come back", err, e.Data.RetryAfterSeconds, api.Overloaded)
		}
		close(release)
		wg.Wait()
		if h.Runs() != 3 {
			t.Errorf("%d hashes ran, want 3", h.Runs())
		}
		h.Close()
	})
}

func TestWhoeverGoesAwayBeforeHisTurnCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHasherCost(1, 2, cheap)
		release := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { _ = h.do(t.Context(), Lane{}, func(*worker) { <-release }) })
		synctest.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		var err error
		wg.Go(func() { err = h.do(ctx, Lane{}, func(*worker) { t.Error("it ran") }) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		if api.FromError(err).Code != api.Overloaded {
			t.Errorf("the error is %v, want %d", err, api.Overloaded)
		}
		close(release)
		wg.Wait()
		h.Close()
		if h.Runs() != 1 {
			t.Errorf("%d hashes ran, want 1", h.Runs())
		}
	})
}

func TestWhatHasBegunIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHasherCost(1, 2, cheap)
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		answered := false
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := h.do(ctx, Lane{}, func(*worker) { <-release }); err != nil {
				t.Errorf("the outcome is thrown away: %v", err)
			}
			answered = true
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		if answered {
			t.Error("whoever goes away is told before the work is done")
		}
		close(release)
		wg.Wait()
		h.Close()
	})
}

func TestAfterCloseNothingIsHashed(t *testing.T) {
	h := NewHasherCost(2, 2, cheap)
	h.Close()
	h.Close()
	if _, err := h.Hash(t.Context(), Lane{}, api.NewSecret("x")); api.FromError(err).Code != api.ShuttingDown {
		t.Errorf("the error is %v, want %d", err, api.ShuttingDown)
	}
}

var cheap = Cost{MemoryKiB: 64, Iterations: 1, Parallelism: 1}

func cheapHasher(t *testing.T) *Hasher {
	t.Helper()
	h := NewHasherCost(1, 256, cheap)
	t.Cleanup(h.Close)
	return h
}
