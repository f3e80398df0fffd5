//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/internal/cli"
	"sessiond/store/bolt"
)

// What a crash must leave as it was. Many clients create, end and validate
// sessions while the server is killed; a ledger on their side holds what was
// acknowledged and what was under way. After the restart
//
//   - each session whose creation was acknowledged lives, unless its end was
//     acknowledged or under way,
//   - each session whose end was acknowledged is dead,
//   - nothing lives that nobody created: at most one session for each creation under way,
//   - what was written into a session, a new token among it, is there,
//   - an account's sessions that were ended together are dead together or not at all,
//   - what is listed, counted and validated is the same,
//   - exactly as many sessions fit below each limit as the limit says,
//   - the file is whole.
func TestCrash(t *testing.T) {
	const rounds, bound = 4, 10 * time.Second // to be ready again
	h := newHome(t, crowded())
	p := h.start(t)
	l := newLedger(hire(t, p))
	l.enlist(t, p)
	slowest := p.ready
	for round := range rounds {
		if t.Failed() {
			return
		}
		l.load(t, p, shortestRun+rand.N(longestRun-shortestRun), p.kill)
		verified(t, h)
		if rand.N(secondCrashOneIn) == 0 {
			again := h.launch(t)
			pause(t, rand.N(secondCrashWithin))
			again.kill()
		}
		p = h.start(t)
		slowest = max(slowest, p.ready)
		if p.ready > bound {
			t.Errorf("round %d: ready after %v, want at most %v", round, p.ready, bound)
		}
		l.check(t, p)
		l.fill(t, p)
		l.makeRoom(t, p)
	}
	if code, took := p.terminate(); code != 0 {
		t.Errorf("exit code %d after %v, want 0:\n%s", code, took, p.output)
	}
	verified(t, h)
	t.Logf("%d rounds of kill -9: %d creates, %d ends and %d other changes acknowledged, %d validated; under way when killed: %d creates (%d survived), %d ends (%d done); slowest start %v",
		rounds, l.creates, l.ends, l.changes, l.validations.Load(), l.openCreates, l.adopted, l.openEnds, l.openEndsDone, slowest.Round(time.Millisecond))
}

const (
	crashClients = 16
	totalLimit   = 400
	accountLimit = 25
	users        = 12 // whose sessions any client may end

	limitReached        = 21301
	limitPerUsername    = 21303
	overloaded          = 21901
	storageFull         = 21902
	storageFailed       = 21903
	shuttingDown        = 21904
	outcomeUnknown      = 21905
	invalidAuthToken    = 12031
	validatedAtOnce     = 1000
	handlesAtOnce       = 50
	fillers             = 8 // clients that fill up to a limit together
	shortestRun         = 50 * time.Millisecond
	longestRun          = 500 * time.Millisecond
	secondCrashOneIn    = 5                     // rounds in which the restart is killed too
	secondCrashWithin   = 60 * time.Millisecond // of the restart
	sharedAccountPrefix = "user-"
)

// A server that is asked to stop answers every request that it took in: what was
// not answered had no effect. It keeps the last uses that were in memory alone.
func TestDrain(t *testing.T) {
	h := newHome(t, roomy())
	p := h.start(t)
	l := newLedger(hire(t, p))
	l.enlist(t, p)
	used := useUntilLater(t, p, l.staff.issuer)
	var code int
	var took time.Duration
	l.load(t, p, 300*time.Millisecond, func() { code, took = p.terminate() })
	if code != 0 || took > 5*time.Second {
		t.Errorf("exit code %d after %v, want 0 within 5 s:\n%s", code, took, p.output)
	}
	verified(t, h)
	open := len(l.creating)
	p = h.start(t)
	l.check(t, p)
	if l.adopted > 0 {
		t.Errorf("%d of %d creations that were not answered took effect", l.adopted, open)
	}
	if l.openEndsDone > 0 {
		t.Errorf("%d of %d ends that were not answered took effect", l.openEndsDone, l.openEnds)
	}
	if at := lastAccess(t, p, l.staff.issuer); at.Before(used) {
		t.Errorf("the session was last used at %v, but after the restart it says %v", used, at)
	}
	t.Logf("drained in %v: %d creates and %d ends acknowledged, %d and %d turned away", took.Round(time.Millisecond), l.creates, l.ends, open, l.openEnds)
}

// useUntilLater validates a session until its last access is later than its
// creation, and returns that time.
func useUntilLater(t *testing.T, p *process, of credential) time.Time {
	t.Helper()
	first := lastAccess(t, p, of)
	c := newClient(p, of.AuthToken)
	defer c.close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		c.must(t, "validate", nil, nil)
		if at := lastAccess(t, p, of); at.After(first) {
			return at
		}
		if time.Now().After(deadline) {
			t.Fatal("validate does not move the time of the last access")
		}
	}
}

func lastAccess(t *testing.T, p *process, of credential) time.Time {
	t.Helper()
	c := newClient(p, of.AuthToken)
	defer c.close()
	var info struct{ SessionLastAccessedTimestamp time.Time }
	c.must(t, "getSessionInfo", nil, &info)
	return info.SessionLastAccessedTimestamp
}

// verified fails unless the file of a server that does not run is whole.
func verified(t *testing.T, h home) {
	t.Helper()
	if _, err := bolt.Verify(t.Context(), filepath.Join(h.data, cli.DataFile), nil); err != nil {
		t.Errorf("verify: %v", err)
	}
}

// pause lets a part of real time pass, which is what a crash is random in.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// load lets clients work against a server for a while, then calls end, which
// ends the server, and waits for them.
func (l *ledger) load(t *testing.T, p *process, d time.Duration, end func()) {
	t.Helper()
	l.loadUntil(t, p, func() { pause(t, d) }, end)
}

// loadUntil is load for as long as wait takes.
func (l *ledger) loadUntil(t *testing.T, p *process, wait, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ending atomic.Bool
	var group sync.WaitGroup
	for n := range crashClients {
		group.Go(func() {
			w := newWorker(l, p)
			defer w.close()
			for ctx.Err() == nil {
				begun := time.Now()
				err := w.step(ctx)
				l.busy(time.Since(begun))
				if w, ok := errors.AsType[*wrong](err); ok {
					l.note(t, w.figure, "client %d: %s", n, w.text)
				} else if err != nil && !ending.Load() {
					t.Errorf("client %d: %v", n, err)
				}
				if err != nil {
					return
				}
			}
		})
	}
	wait()
	ending.Store(true)
	end()
	cancel() // nothing answers any more
	group.Wait()
}

// worker is one client.
type worker struct {
	*ledger
	issuer, key, admin, nobody *client
	account                    string    // its own, whose sessions it ends all at once
	own                        []*record // of that account
}

func newWorker(l *ledger, p *process) *worker {
	return &worker{
		ledger: l, account: l.anAccount(),
		issuer: newClient(p, l.staff.issuer.AuthToken), key: newClient(p, l.staff.issuerKey.AuthToken),
		admin: newClient(p, l.staff.admin.AuthToken), nobody: newClient(p, ""),
	}
}

func (w *worker) close() {
	for _, c := range []*client{w.issuer, w.key, w.admin, w.nobody} {
		c.close()
	}
}

// step does one thing. An error means that the server did not answer, or answered
// what it must not.
func (w *worker) step(ctx context.Context) error {
	switch dice := rand.N(100); {
	case dice < 30:
		_, err := w.create(ctx, w.begin(sharedAccountPrefix+fmt.Sprint(rand.N(users)), false))
		return err
	case dice < 31:
		return w.logIn(ctx)
	case dice < 40:
		return w.endAccount(ctx)
	case dice < 53:
		return w.end(ctx)
	case dice < 60:
		return w.revoke(ctx)
	case dice < 70:
		return w.alter(ctx)
	case dice < 74:
		return w.rotate(ctx)
	case dice < 76:
		return w.refresh(ctx)
	case dice < 88:
		return w.validateLive(ctx)
	default:
		return w.validateEnded(ctx)
	}
}

// create makes a session. It returns false where a limit left no place, or the
// server was stopping.
func (w *worker) create(ctx context.Context, r *record) (bool, error) {
	var made credential
	c := w.key
	if r.permanent {
		c = w.issuer
	}
	return w.made(r, &made, w.change(ctx, c, "createSession", r.asked(), &made))
}

// made notes how a creation went.
func (w *worker) made(r *record, made *credential, err error) (bool, error) {
	switch code := codeOf(err); {
	case code == 0:
		w.created(r, *made)
		return true, nil
	case code == limitReached, code == limitPerUsername, code == shuttingDown:
		w.refused(r)
		return false, nil
	case w.unsure(err):
		if code != outcomeUnknown {
			w.refused(r)
		}
		return false, nil
	}
	return false, err
}

// revoke ends a few sessions by their handles.
func (w *worker) revoke(ctx context.Context) error {
	var some []*record
	for range 1 + rand.N(4) {
		if r := w.checkOut(); r != nil {
			some = append(some, r)
		}
	}
	if some == nil {
		return nil
	}
	return w.revokeAll(ctx, some)
}

// endAccount creates some sessions of the client's own account, or ends all of
// them in one commit.
func (w *worker) endAccount(ctx context.Context) error {
	if len(w.own) == 0 || rand.N(3) > 0 && len(w.own) < 6 {
		r := w.begin(w.account, true)
		made, err := w.create(ctx, r)
		if made {
			w.own = append(w.own, r)
		}
		return err
	}
	return w.endOwn(ctx)
}

// validateLive asks about a session that lives and that nobody ends meanwhile.
func (w *worker) validateLive(ctx context.Context) error {
	r := w.checkOut()
	if r == nil {
		return nil
	}
	defer w.checkIn(r)
	if r.token == "" {
		return nil
	}
	valid, err := w.validate(ctx, r)
	if err == nil && !valid {
		return &wrong{deadTokens, "a session that lives is not valid: " + r.op}
	}
	return err
}

func (w *worker) validateEnded(ctx context.Context) error {
	r := w.anEnded()
	if r == nil {
		return nil
	}
	valid, err := w.validate(ctx, r)
	if err == nil && valid {
		return &wrong{aliveTokens, "a session is valid whose end was acknowledged: " + r.op}
	}
	return err
}

// validate asks with one of the session's own tokens, or the administrator's.
func (w *worker) validate(ctx context.Context, r *record) (bool, error) {
	w.validations.Add(1)
	token := r.token
	if n := len(r.replaced); n > 0 && rand.N(3) == 0 {
		token = r.replaced[rand.N(n)]
	}
	var decision struct{ Valid bool }
	if rand.N(2) == 0 {
		err := w.admin.call(ctx, "validate", params{"tokenId": token}, &decision)
		return decision.Valid, stopping(err)
	}
	err := w.as(token).call(ctx, "validate", nil, &decision)
	if codeOf(err) == invalidAuthToken {
		return false, nil
	}
	return decision.Valid, stopping(err)
}
