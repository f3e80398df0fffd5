//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

// linearClient does one thing after the other.
type linearClient struct {
	*history
	id                    int
	life                  *life
	nobody, admin, issuer *client
}

// meet has the client speak to a server.
func (c *linearClient) meet(l *life) {
	c.close()
	c.life, c.nobody, c.admin, c.issuer = l, newClient(l.p, ""), newClient(l.p, c.staff.admin.AuthToken), newClient(l.p, c.staff.issuerKey.AuthToken)
}

func (c *linearClient) close() {
	if c.life == nil {
		return
	}
	for _, each := range []*client{c.nobody, c.admin, c.issuer} {
		each.close()
	}
}

// step does one thing. If the server comes to its end meanwhile, it waits for the
// next one.
func (c *linearClient) step(ctx context.Context) error {
	if present := c.present.Load(); present != c.life {
		c.meet(present)
	}
	c.done.Add(1)
	err := c.choose(ctx)
	if c.life.ending.Load() {
		select {
		case <-c.life.next:
		case <-ctx.Done():
		}
	}
	return err
}

func (c *linearClient) choose(ctx context.Context) error {
	i := rand.N(linearLanes)
	l := c.lanes[i].Load()
	if l == nil || l.over() {
		return c.create(ctx, i, l)
	}
	switch dice := rand.N(1000); {
	case dice < 230:
		return c.validate(ctx, l)
	case dice < 430:
		return c.use(ctx, l)
	case dice < 580:
		return c.look(ctx, l, doLook)
	case dice < 620:
		return c.look(ctx, l, doList)
	case dice < 790:
		return c.alter(ctx, l)
	case dice < 925:
		return c.rotate(ctx, l)
	case dice < 945:
		return c.logout(ctx, l)
	case dice < 965:
		return c.revoke(ctx, l)
	case dice < 980:
		return c.end(ctx, l)
	case dice < 990:
		return c.remove(ctx, l)
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

func (l *lane) isOver() {
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
		if ctx.Err() != nil || c.life.ending.Load() {
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
		if codeOf(err) == -1 && c.life.ending.Load() {
			return nil // if it was created, nobody knows its token
		}
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

// use shows a token of the session, which counts as a use of it.
func (c *linearClient) use(ctx context.Context, l *lane) error {
	n, token := l.token(false)
	what, action, p := doUse, "validate", params{"refresh": rand.N(2) == 0}
	if rand.N(3) == 0 {
		what, action, p = doRefresh, "refresh", nil
	}
	decision := struct{ Valid bool }{what == doRefresh}
	call := c.now()
	out, err := c.call(ctx, c.nobody.as(token), action, p, &decision)
	if err != nil {
		return err
	}
	out.ok = out.ok && decision.Valid
	c.record(l, call, deed{what: what, token: n}, out)
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

// look has the session shown, alone or in the list of its browser.
func (c *linearClient) look(ctx context.Context, l *lane, what string) error {
	var shown struct {
		view
		Sessions []view
	}
	call := c.now()
	out, err := c.call(ctx, c.admin, what, params{"sessionHandle": l.handle}, &shown)
	if err != nil {
		return err
	}
	if what == doList && len(shown.Sessions) == 1 { // none: it was taken off
		shown.view = shown.Sessions[0]
	}
	out.ok = out.ok && shown.Status == "active"
	out.text, out.revision = shown.text(), shown.Revision
	c.record(l, call, deed{what: what}, out)
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
	l.isOver()
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
	l.isOver()
	return nil
}

func (c *linearClient) end(ctx context.Context, l *lane) error {
	var done struct{ AlreadyEnded bool }
	call := c.now()
	out, err := c.call(ctx, c.admin, doEnd, params{"sessionHandle": l.handle}, &done)
	if err != nil {
		return err
	}
	out.ok = out.ok && !done.AlreadyEnded
	c.record(l, call, deed{what: doEnd}, out)
	l.isOver()
	return nil
}

// remove does not learn whether the session lived.
func (c *linearClient) remove(ctx context.Context, l *lane) error {
	call := c.now()
	out, err := c.call(ctx, c.admin, doRemove, params{"sessionHandle": l.handle}, nil)
	if err != nil {
		return err
	}
	c.record(l, call, deed{what: doRemove}, out)
	l.isOver()
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
			other.isOver()
		}
	}
	return nil
}

// review asks about every session that there ever was.
func (c *linearClient) review(ctx context.Context) error {
	c.meet(c.present.Load())
	for some := range slices.Chunk(c.all, validatedAtOnce) {
		tokens := make([]string, len(some))
		for i, l := range some {
			tokens[i] = l.tokens[len(l.tokens)-1]
		}
		var decided struct{ Results []struct{ Valid bool } }
		call := c.now()
		if err := c.admin.call(ctx, "validate", params{"tokenIds": tokens, "refresh": false}, &decided); err != nil {
			return err
		}
		for i, l := range some {
			c.record(l, call, deed{what: doValidate, token: len(l.tokens) - 1}, outcome{ok: decided.Results[i].Valid})
		}
	}
	return nil
}
