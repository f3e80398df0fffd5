//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// record is what a client knows of one session.
type record struct {
	op        string // the session's description, by which it is recognized
	username  string
	permanent bool
	token     string // empty: the answer was lost
	handle    string
	together  string // of sessions that end in one commit
	private   bool   // only the client that creates it does anything with it
	state     recordState
}

type recordState uint8

const (
	unborn recordState = iota // its creation is under way
	living
	dying // its end is under way
	dead
)

// ledger is what the clients of a server know. A session that lives is checked
// out by the one client that does something with it.
type ledger struct {
	staff staff

	mu       sync.Mutex
	ops      int
	all      []*record          // whose creation was acknowledged, or found to have happened
	free     []*record          // those that live and may be checked out
	ended    []*record          // whose end was acknowledged
	creating map[string]*record // by op

	creates, ends          int // acknowledged
	openCreates, adopted   int // under way at an end of the server, and those of them that happened
	openEnds, openEndsDone int
	validations            atomic.Int64
}

func newLedger(s staff) *ledger { return &ledger{staff: s, creating: map[string]*record{}} }

func (l *ledger) nextOp() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops++
	return fmt.Sprint("op-", l.ops)
}

func (l *ledger) begin(username string, private bool) *record {
	r := &record{op: l.nextOp(), username: username, permanent: rand.N(5) == 0, private: private}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.creating[r.op] = r
	return r
}

func (l *ledger) refused(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.creating, r.op)
}

func (l *ledger) created(r *record, c credential) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.creating, r.op)
	r.token, r.handle, r.state = c.AuthToken, c.SessionHandle, living
	l.all = append(l.all, r)
	if !r.private {
		l.free = append(l.free, r)
	}
	l.creates++
}

func (l *ledger) checkOut() *record {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) == 0 {
		return nil
	}
	i, last := rand.N(len(l.free)), len(l.free)-1
	r := l.free[i]
	l.free[i] = l.free[last]
	l.free = l.free[:last]
	return r
}

func (l *ledger) checkIn(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, r)
}

func (l *ledger) anEnded() *record {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ended) == 0 {
		return nil
	}
	return l.ended[rand.N(len(l.ended))]
}

// ending notes that ends are under way.
func (l *ledger) ending(some ...*record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range some {
		r.state = dying
	}
}

// settle notes how ends went: err is nil where they were acknowledged.
func (l *ledger) settle(err error, some ...*record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return stopping(err)
	}
	l.markDead(some)
	l.ends += len(some)
	return nil
}

// markDead runs under mu.
func (l *ledger) markDead(some []*record) {
	for _, r := range some {
		r.state = dead
		if r.token != "" {
			l.ended = append(l.ended, r)
		}
	}
}

// errStopping is what a client ends with that was told so.
var errStopping = errors.New("the server is stopping")

// stopping turns the refusal of a server that stops into an error that only
// then is none.
func stopping(err error) error {
	if codeOf(err) == shuttingDown {
		return errStopping
	}
	return err
}

// row is a session as listSessions shows it.
type row struct {
	SessionHandle, Username, Realm, Description string
	PermanentSession                            bool
}

// check compares a server that was just started with what the clients know, and
// settles what was under way.
func (l *ledger) check(t *testing.T, p *process) {
	t.Helper()
	c := newClient(p, l.staff.admin.AuthToken)
	defer c.close()
	rows := listed(t, c)
	for _, handle := range l.staff.handles() {
		if _, ok := rows[handle]; !ok {
			t.Errorf("the session %s of the staff is gone", handle)
		}
		delete(rows, handle)
	}
	l.checkCount(t, c, nil, len(rows)+len(l.staff.handles()))

	groups := map[string][2]int{} // alive and dead
	for _, r := range l.all {
		_, alive := rows[r.handle]
		delete(rows, r.handle)
		switch {
		case r.state == living && !alive:
			t.Errorf("the creation of %s was acknowledged, but it is gone", r.op)
		case r.state == dead && alive:
			t.Errorf("the end of %s was acknowledged, but it lives", r.op)
		case r.state == dying:
			l.openEnds++
			g := groups[r.together]
			if r.state = living; alive {
				g[0]++
			} else {
				g[1]++
				l.openEndsDone++
				l.markDead([]*record{r})
			}
			groups[r.together] = g
		}
	}
	for name, g := range groups {
		if name != "" && g[0] > 0 && g[1] > 0 {
			t.Errorf("of the sessions of %s, which were ended in one commit, %d live and %d are dead", name, g[0], g[1])
		}
	}
	l.openCreates += len(l.creating)
	for handle, s := range rows {
		r := l.creating[s.Description]
		if r == nil || r.username != s.Username || r.permanent != s.PermanentSession || s.Realm != "app" {
			t.Errorf("a session lives that nobody created: %s of %s, %q", handle, s.Username, s.Description)
			continue
		}
		delete(l.creating, r.op)
		r.handle, r.state = handle, living
		l.all = append(l.all, r)
		l.adopted++
	}
	clear(l.creating)
	l.free = slices.DeleteFunc(slices.Clone(l.all), func(r *record) bool { return r.state != living })
	l.checkTokens(t, c)
	for n := range users {
		l.checkCount(t, c, []string{sharedAccountPrefix + fmt.Sprint(n)}, l.of(sharedAccountPrefix+fmt.Sprint(n)))
	}
}

// of counts an account's living sessions.
func (l *ledger) of(username string) (n int) {
	for _, r := range l.free {
		if r.username == username {
			n++
		}
	}
	return n
}

// listed returns all that lives, by handle, page by page.
func listed(t *testing.T, c *client) map[string]row {
	t.Helper()
	rows := map[string]row{}
	for p := (params{"limit": 150}); ; {
		var page struct {
			Sessions []row
			Cursor   string
		}
		c.must(t, "listSessions", p, &page)
		for _, s := range page.Sessions {
			if _, twice := rows[s.SessionHandle]; twice {
				t.Errorf("%s is listed twice", s.SessionHandle)
			}
			rows[s.SessionHandle] = s
		}
		if page.Cursor == "" {
			return rows
		}
		p["cursor"] = page.Cursor
	}
}

func (l *ledger) checkCount(t *testing.T, c *client, usernames []string, want int) {
	t.Helper()
	if got := countLive(t, c, usernames); got != want {
		t.Errorf("countOnly of %v says %d, want %d", usernames, got, want)
	}
}

func countLive(t *testing.T, c *client, usernames []string) int {
	t.Helper()
	p := params{"countOnly": true}
	if usernames != nil {
		p["usernameFilter"] = usernames
	}
	var counted struct{ Count int }
	c.must(t, "listSessions", p, &counted)
	return counted.Count
}

// checkTokens validates every token there ever was.
func (l *ledger) checkTokens(t *testing.T, c *client) {
	t.Helper()
	known := slices.DeleteFunc(slices.Clone(l.all), func(r *record) bool { return r.token == "" })
	for some := range slices.Chunk(known, validatedAtOnce) {
		tokens := make([]string, len(some))
		for i, r := range some {
			tokens[i] = r.token
		}
		var decided struct {
			Results []struct {
				Valid               bool
				Code, SessionHandle string
			}
		}
		c.must(t, "validate", params{"tokenIds": tokens, "refresh": false}, &decided)
		for i, r := range some {
			d := decided.Results[i]
			if r.state == living && (!d.Valid || d.SessionHandle != r.handle) || r.state == dead && (d.Valid || d.Code != "NOT_FOUND") {
				t.Errorf("validate says %+v of %s, which is %v", d, r.op, map[bool]string{true: "alive", false: "dead"}[r.state == living])
			}
		}
	}
}

// fill creates sessions until no more fit: first one account's, then of many.
func (l *ledger) fill(t *testing.T, p *process) {
	t.Helper()
	room := totalLimit - len(l.free) - len(l.staff.handles())
	username := sharedAccountPrefix + fmt.Sprint(rand.N(users))
	want := min(accountLimit-l.of(username), room)
	if got := l.fillUp(t, p, func() string { return username }); got != want {
		t.Errorf("after the restart %d sessions of %s were created up to its limit of %d, want %d", got, username, accountLimit, want)
	}
	want = totalLimit - len(l.free) - len(l.staff.handles())
	if got := l.fillUp(t, p, func() string { return "crowd-" + l.nextOp() }); got != want {
		t.Errorf("after the restart %d sessions were created up to the limit of %d, want %d", got, totalLimit, want)
	}
	c := newClient(p, l.staff.admin.AuthToken)
	defer c.close()
	l.checkCount(t, c, nil, totalLimit)
}

// fillUp lets clients create sessions until each is refused.
func (l *ledger) fillUp(t *testing.T, p *process, username func() string) int {
	t.Helper()
	before := l.creates
	var group sync.WaitGroup
	for n := range fillers {
		group.Go(func() {
			w := newWorker(l, p, n)
			defer w.close()
			for {
				made, err := w.create(t.Context(), w.begin(username(), false))
				if err != nil {
					t.Errorf("createSession: %v", err)
				}
				if !made {
					return
				}
			}
		})
	}
	group.Wait()
	return l.creates - before
}

// makeRoom ends three of four sessions by their handles.
func (l *ledger) makeRoom(t *testing.T, p *process) {
	t.Helper()
	w := newWorker(l, p, 0)
	defer w.close()
	var some []*record
	for range len(l.free) * 3 / 4 {
		some = append(some, w.checkOut())
	}
	for batch := range slices.Chunk(some, handlesAtOnce) {
		if err := w.revokeAll(t.Context(), batch); err != nil {
			t.Errorf("revokeSessions: %v", err)
		}
	}
}

// revokeAll ends sessions by their handles.
func (w *worker) revokeAll(ctx context.Context, some []*record) error {
	handles := make([]string, len(some))
	for i, r := range some {
		handles[i] = r.handle
	}
	var done struct{ Results map[string]bool }
	w.ending(some...)
	err := w.admin.call(ctx, "revokeSessions", params{"sessionHandles": handles}, &done)
	for _, r := range some {
		if err == nil && !done.Results[r.handle] {
			return fmt.Errorf("a session that lived was not revoked: %s", r.op)
		}
	}
	return w.settle(err, some...)
}
