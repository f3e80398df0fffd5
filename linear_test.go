//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Many clients of one server create, use, alter, rotate and end the same sessions
// at the same time, and some do not wait for the answer. Of each session there has
// to be an order of all that was done to it, in which everything took effect at one
// moment between its request and its answer, and which explains every answer. What
// was not answered may have taken effect at any later moment, or not at all.
func TestLinearizability(t *testing.T) { linearize(t, 5_000/lessUnderRace) }

const (
	linearClients  = 12
	linearLanes    = 24 // sessions that are used at a time
	lanesOfAccount = 2
	afterlife      = 12   // operations on a session once it has ended
	impatient      = 0.03 // of the operations are not waited for
	notFound       = 21401
	checkWithin    = 30 * time.Second
)

func linearize(t *testing.T, operations int64) {
	p := newHome(t, services(map[string]any{"rotationGraceSeconds": 3600})).start(t)
	h := &history{staff: hire(t, p), begun: time.Now(), masses: map[string][]porcupine.Operation{}, seen: map[string]*[3]int{}}
	var clients sync.WaitGroup
	for n := range linearClients {
		clients.Go(func() {
			c := &linearClient{history: h, id: n, nobody: newClient(p, ""), admin: newClient(p, h.staff.admin.AuthToken), issuer: newClient(p, h.staff.issuerKey.AuthToken)}
			defer c.close()
			for h.done.Load() < operations && !t.Failed() {
				if err := c.step(t.Context()); err != nil {
					t.Errorf("client %d: %v", n, err)
				}
			}
		})
	}
	clients.Wait()
	took := time.Since(h.begun)
	sessions := h.check(t)
	t.Logf("%d operations of %d clients on %d sessions in %v, checked in %v", h.done.Load(), linearClients, sessions,
		took.Round(time.Millisecond), (time.Since(h.begun) - took).Round(time.Millisecond))
	for _, what := range []string{doCreate, doValidate, doUse, doLook, doAlter, doRotate, doLogout, doRevoke, doEndAll} {
		n := h.seen[what]
		if n == nil {
			n = &[3]int{}
		}
		t.Logf("%6d well, %5d in vain, %4d without an answer: %s", n[0], n[1], n[2], what)
		if n[0] == 0 || n[1] == 0 && what != doCreate && what != doEndAll || n[2] == 0 && what != doCreate && operations > 10_000 {
			t.Errorf("%s: not all happened", what)
		}
	}
}

// history is what was done, by session.
type history struct {
	staff staff
	begun time.Time
	done  atomic.Int64
	texts atomic.Int64
	lanes [linearLanes]atomic.Pointer[lane]

	mu     sync.Mutex
	all    []*lane
	masses map[string][]porcupine.Operation // by account
	seen   map[string]*[3]int               // by what was done: well, in vain, without an answer
}

// A lane is a session, and what was done to it.
type lane struct {
	account, handle string

	mu     sync.Mutex
	tokens []string // each the successor of the one before
	done   []porcupine.Operation
	ended  bool
	left   int // operations, once it has ended
}

// now is of a clock that no one sets.
func (h *history) now() int64 { return time.Since(h.begun).Nanoseconds() }

// check fails unless the history of every session has an order.
func (h *history) check(t *testing.T) (sessions int) {
	t.Helper()
	model := seenModel()
	for _, l := range h.all {
		first, last := l.done[0].Call, int64(0)
		for _, o := range l.done {
			last = max(last, o.Return)
		}
		for _, m := range h.masses[l.account] {
			if m.Return > first && m.Call < last {
				l.done = append(l.done, m)
				if m.Return != never {
					m.Input = deed{what: doSettle}
					l.done = append(l.done, m)
				}
			}
		}
		l.done = append(l.done, porcupine.Operation{ClientId: linearClients, Input: deed{what: doRest}, Call: h.now(), Output: outcome{}, Return: never})
		result, info := porcupine.CheckOperationsVerbose(model, l.done, checkWithin)
		if result == porcupine.Ok {
			continue
		}
		t.Errorf("the history of %s of %s is %s", l.handle, l.account, result)
		slices.SortFunc(l.done, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, o := range l.done {
			t.Logf("client %2d, %8d to %8d µs: %s", o.ClientId, o.Call/1000, o.Return/1000, model.DescribeOperation(o.Input, o.Output))
		}
		if file := os.Getenv("LINEAR_PICTURE"); file != "" {
			if err := porcupine.VisualizePath(model, info, file); err != nil {
				t.Error(err)
			}
		}
		break // one is enough to look at
	}
	return len(h.all)
}

// linearClient does one thing after the other.
type linearClient struct {
	*history
	id                    int
	nobody, admin, issuer *client
}

func (c *linearClient) close() {
	for _, each := range []*client{c.nobody, c.admin, c.issuer} {
		each.close()
	}
}

func (c *linearClient) step(ctx context.Context) error {
	c.done.Add(1)
	i := rand.N(linearLanes)
	l := c.lanes[i].Load()
	if l == nil || l.over() {
		return c.create(ctx, i, l)
	}
	switch dice := rand.N(1000); {
	case dice < 250:
		return c.validate(ctx, l)
	case dice < 400:
		return c.use(ctx, l)
	case dice < 600:
		return c.look(ctx, l)
	case dice < 780:
		return c.alter(ctx, l)
	case dice < 930:
		return c.rotate(ctx, l)
	case dice < 960:
		return c.logout(ctx, l)
	case dice < 990:
		return c.revoke(ctx, l)
	default:
		return c.endAll(ctx, l)
	}
}

// over counts what is done to a session that has ended.
func (l *lane) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		l.left--
	}
	return l.left < 0
}

func (l *lane) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended, l.left = true, afterlife
	}
}

// token returns one of a session's last tokens, or the last one.
func (l *lane) token(last bool) (n int, token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n = len(l.tokens) - 1; !last {
		n = max(0, n-rand.N(goodTokens+2))
	}
	return n, l.tokens[n]
}

// as is a client with another token.
func (c *client) as(token string) *client {
	other := *c
	other.token = token
	return &other
}

// call does something and returns how it was answered. An answer that says neither
// that it was done nor that there is no such session is an error.
func (c *linearClient) call(ctx context.Context, as *client, action string, p params, result any) (out outcome, err error) {
	if rand.Float64() < impatient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rand.N(3*time.Millisecond))
		defer cancel()
	}
	err = as.call(ctx, action, p, result)
	switch codeOf(err) {
	case 0:
		return outcome{ok: true}, nil
	case invalidAuthToken, notFound:
		return outcome{}, nil
	case -1:
		if ctx.Err() != nil {
			return outcome{lost: true}, nil
		}
	}
	return outcome{}, fmt.Errorf("%s: %w", action, err)
}

// record notes what was done from a moment on until now.
func (c *linearClient) record(l *lane, call int64, in deed, out outcome) {
	o := porcupine.Operation{ClientId: c.id, Input: in, Call: call, Output: out, Return: c.now()}
	if out.lost {
		o.Return = never
	}
	if in.what == doEndAll {
		c.mu.Lock()
		c.masses[l.account] = append(c.masses[l.account], o)
		c.mu.Unlock()
	} else {
		l.mu.Lock()
		l.done = append(l.done, o)
		l.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.seen[in.what]
	if n == nil {
		n = &[3]int{}
		c.seen[in.what] = n
	}
	switch {
	case out.lost:
		n[2]++
	case out.ok:
		n[0]++
	default:
		n[1]++
	}
}

// create puts a new session in the place of one that has ended.
func (c *linearClient) create(ctx context.Context, i int, before *lane) error {
	l := &lane{account: fmt.Sprint("user-", i/lanesOfAccount)}
	in := deed{what: doCreate, text: int(c.texts.Add(1))}
	var made credential
	call := c.now()
	if err := c.issuer.call(ctx, "createSession", params{"realm": "app", "username": l.account, "description": strconv.Itoa(in.text)}, &made); err != nil {
		return err
	}
	c.record(l, call, in, outcome{ok: true})
	l.handle, l.tokens = made.SessionHandle, []string{made.AuthToken}
	c.mu.Lock()
	c.all = append(c.all, l)
	c.mu.Unlock()
	c.lanes[i].CompareAndSwap(before, l) // if another client was faster, nobody uses this one
	return nil
}

func (c *linearClient) validate(ctx context.Context, l *lane) error {
	n, token := l.token(false)
	var decision struct{ Valid bool }
	call := c.now()
	out, err := c.call(ctx, c.admin, "validate", params{"tokenId": token, "refresh": rand.N(2) == 0}, &decision)
	if err != nil {
		return err
	}
	out.ok = out.ok && decision.Valid
	c.record(l, call, deed{what: doValidate, token: n}, out)
	return nil
}

func (c *linearClient) use(ctx context.Context, l *lane) error {
	n, token := l.token(false)
	var decision struct{ Valid bool }
	call := c.now()
	out, err := c.call(ctx, c.nobody.as(token), "validate", params{"refresh": rand.N(2) == 0}, &decision)
	if err != nil {
		return err
	}
	out.ok = out.ok && decision.Valid
	c.record(l, call, deed{what: doUse, token: n}, out)
	return nil
}

// view is what is shown of a session.
type view struct {
	AuthToken, Description, Status string
	Revision                       int
}

func (v *view) text() int {
	n, err := strconv.Atoi(v.Description)
	if err != nil {
		return -1
	}
	return n
}

func (c *linearClient) look(ctx context.Context, l *lane) error {
	var v view
	call := c.now()
	out, err := c.call(ctx, c.admin, "getSessionInfo", params{"sessionHandle": l.handle}, &v)
	if err != nil {
		return err
	}
	out.ok = out.ok && v.Status == "active"
	out.text, out.revision = v.text(), v.Revision
	c.record(l, call, deed{what: doLook}, out)
	return nil
}

func (c *linearClient) alter(ctx context.Context, l *lane) error {
	in := deed{what: doAlter, text: int(c.texts.Add(1))}
	var v view
	call := c.now()
	out, err := c.call(ctx, c.admin, "alterSession", params{"sessionHandle": l.handle, "description": strconv.Itoa(in.text)}, &v)
	if err != nil {
		return err
	}
	out.revision = v.Revision
	c.record(l, call, in, out)
	return nil
}

func (c *linearClient) rotate(ctx context.Context, l *lane) error {
	n, token := l.token(rand.N(2) == 0)
	var v view
	call := c.now()
	out, err := c.call(ctx, c.nobody.as(token), "rotateSession", nil, &v)
	if err != nil {
		return err
	}
	out.revision = v.Revision
	c.record(l, call, deed{what: doRotate, token: n}, out)
	if !out.ok || out.lost {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case n == len(l.tokens)-1:
		l.tokens = append(l.tokens, v.AuthToken)
	case l.tokens[n+1] != v.AuthToken:
		return fmt.Errorf("token %d of %s has two successors", n, l.handle)
	}
	return nil
}

func (c *linearClient) logout(ctx context.Context, l *lane) error {
	n, token := l.token(true)
	var done struct{ AlreadyEnded bool }
	call := c.now()
	out, err := c.call(ctx, c.nobody.as(token), "deleteSession", nil, &done)
	if err != nil {
		return err
	}
	out.ok = out.ok && !done.AlreadyEnded
	c.record(l, call, deed{what: doLogout, token: n}, out)
	l.end()
	return nil
}

func (c *linearClient) revoke(ctx context.Context, l *lane) error {
	var done struct{ Results map[string]bool }
	call := c.now()
	out, err := c.call(ctx, c.admin, "revokeSessions", params{"sessionHandles": []string{l.handle}}, &done)
	if err != nil {
		return err
	}
	out.ok = out.ok && done.Results[l.handle]
	c.record(l, call, deed{what: doRevoke}, out)
	l.end()
	return nil
}

func (c *linearClient) endAll(ctx context.Context, l *lane) error {
	call := c.now()
	out, err := c.call(ctx, c.admin, "revokeSessions", params{"accounts": []any{params{"realm": "app", "username": l.account}}}, nil)
	if err != nil {
		return err
	}
	c.record(l, call, deed{what: doEndAll}, out)
	for i := range c.lanes {
		if other := c.lanes[i].Load(); other != nil && other.account == l.account {
			other.end()
		}
	}
	return nil
}
