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
	realm     string
	username  string
	permanent bool
	token     string   // empty: the answer was lost
	replaced  []string // tokens before it, which are good as long
	rotations int      // that were asked for
	handle    string
	client    string // the browser or device; empty: the answer was lost
	together  string // of sessions that end in one commit
	private   bool   // only the client that creates it does anything with it
	state     recordState

	property, setting kept
}

// kept is what was written into a session, and what may have been.
type kept struct{ is, maybe string }

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
	changes                int // rotations and alterations that were acknowledged
	validations            atomic.Int64

	faulty   bool         // the disk may fail
	stopped  atomic.Bool  // an answer said that nothing is written any more
	refusals atomic.Int64 // answers that said that something was not written, or perhaps not
	slowest  atomic.Int64 // the longest that a client was busy with one thing, in nanoseconds
	figures  map[string]int
}

// What may go wrong, as a campaign counts it.
const (
	lostCreates  = "acknowledged creates lost"
	lostEnds     = "acknowledged ends lost"
	lostChanges  = "other acknowledged changes lost"
	aliveTokens  = "ended tokens alive"
	deadTokens   = "living tokens dead"
	strangers    = "sessions nobody created"
	tornEnds     = "ends in part"
	falselyAcked = "changes acknowledged after writing had stopped"
)

// wrong is an answer that must not be, or something lost.
type wrong struct{ figure, text string }

func (w *wrong) Error() string { return w.figure + ": " + w.text }

// note counts what is wrong, and fails the test.
func (l *ledger) note(t *testing.T, figure, format string, args ...any) {
	t.Helper()
	t.Errorf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.figures[figure]++
}

func newLedger(s staff) *ledger {
	return &ledger{staff: s, creating: map[string]*record{}, figures: map[string]int{}}
}

func (l *ledger) nextOp() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops++
	return fmt.Sprint("op-", l.ops)
}

func (l *ledger) begin(username string, private bool) *record {
	return l.open(&record{op: l.nextOp(), realm: "app", username: username, permanent: rand.N(5) == 0, private: private})
}

// open notes that a creation is under way.
func (l *ledger) open(r *record) *record {
	r.property, r.setting = kept{is: r.op}, kept{is: r.op}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.creating[r.op] = r
	return r
}

// asked is what a client asks for with each session that it creates.
func (r *record) asked() params {
	return params{
		"realm": r.realm, "username": r.username, "permanentSession": r.permanent,
		"description": r.op, "defaultDatabaseName": r.setting.is, "properties": params{noteProperty: r.property.is},
	}
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
	r.token, r.handle, r.client, r.state = c.AuthToken, c.SessionHandle, c.ClientHandle, living
	l.all = append(l.all, r)
	if !r.private {
		l.free = append(l.free, r)
	}
	l.creates++
}

func (l *ledger) checkOut() *record {
	return l.checkOutOne(func(*record) bool { return true })
}

// checkOutOne checks out a session that will do, or none: it does not try them all.
func (l *ledger) checkOutOne(ok func(r *record) bool) *record {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) == 0 {
		return nil
	}
	i, last := rand.N(len(l.free)), len(l.free)-1
	for range 20 {
		if ok(l.free[i]) {
			break
		}
		i = rand.N(len(l.free))
	}
	if !ok(l.free[i]) {
		return nil
	}
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
	if l.unsure(err) {
		return nil // they may be dead or not until a restart, and nobody may use them
	}
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

// unsure reports whether a disk that may fail explains why a change was not made.
func (l *ledger) unsure(err error) bool {
	code := codeOf(err)
	return l.faulty && (code == storageFull || code == storageFailed || code == outcomeUnknown)
}

// row is a session as describeSessions shows it.
type row struct {
	SessionHandle, Username, Realm, Description, ClientHandle, DefaultDatabaseName string

	PermanentSession bool
	Properties       struct{ Note string }
}

// check compares a server that was just started with what the clients know, and
// settles what was under way.
func (l *ledger) check(t *testing.T, p *process) {
	t.Helper()
	l.stopped.Store(false)
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
		s, alive := rows[r.handle]
		delete(rows, r.handle)
		if alive && r.state != dead {
			l.checkKept(t, r, &s)
		}
		switch {
		case r.state == living && !alive:
			l.note(t, lostCreates, "the creation of %s was acknowledged, but it is gone", r.op)
			r.state = dead // told once
		case r.state == dead && alive:
			l.note(t, lostEnds, "the end of %s was acknowledged, but it lives", r.op)
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
			l.note(t, tornEnds, "of the sessions of %s, which were ended in one commit, %d live and %d are dead", name, g[0], g[1])
		}
	}
	l.openCreates += len(l.creating)
	for handle, s := range rows {
		r := l.creating[s.Description]
		if r == nil || r.username != s.Username || r.permanent != s.PermanentSession || r.realm != s.Realm {
			l.note(t, strangers, "a session lives that nobody created: %s of %s, %q", handle, s.Username, s.Description)
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

// checkKept compares a session that lives with what was written into it, and
// settles what was under way.
func (l *ledger) checkKept(t *testing.T, r *record, s *row) {
	t.Helper()
	for _, one := range []struct {
		what  string
		wrote *kept
		found string
	}{{"property", &r.property, s.Properties.Note}, {"setting", &r.setting, s.DefaultDatabaseName}} {
		if one.found != one.wrote.is && (one.wrote.maybe == "" || one.found != one.wrote.maybe) {
			l.note(t, lostChanges, "the %s of %s is %q, want %q or perhaps %q", one.what, r.op, one.found, one.wrote.is, one.wrote.maybe)
		}
		*one.wrote = kept{is: one.found}
	}
	if r.client == "" {
		r.client = s.ClientHandle
	}
	if r.client != s.ClientHandle {
		l.note(t, lostChanges, "%s is on %s, want %s", r.op, s.ClientHandle, r.client)
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
		c.must(t, "describeSessions", p, &page)
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
	type shown struct {
		*record

		token string
	}
	var known []shown
	for _, r := range l.all {
		for _, token := range append(slices.Clone(r.replaced), r.token) {
			if token != "" {
				known = append(known, shown{r, token})
			}
		}
	}
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
			switch {
			case r.state == living && (!d.Valid || d.SessionHandle != r.handle):
				tokens := append(slices.Clone(r.replaced), r.record.token)
				l.note(t, deadTokens, "validate says %+v of %s, which lives: by token %d of %d", d, r.op, slices.Index(tokens, r.token)+1, len(tokens))
			case r.state == dead && (d.Valid || d.Code != "NOT_FOUND"):
				l.note(t, aliveTokens, "validate says %+v of %s, which is dead", d, r.op)
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
	for range fillers {
		group.Go(func() {
			w := newWorker(l, p)
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
	w := newWorker(l, p)
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
	err := w.change(ctx, w.admin, "revokeSessions", params{"sessionHandles": handles}, &done)
	for _, r := range some {
		if err == nil && !done.Results[r.handle] {
			return fmt.Errorf("a session that lived was not revoked: %s", r.op)
		}
	}
	return w.settle(err, some...)
}
