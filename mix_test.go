//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// What the clients of a ledger do beside creating sessions, asking about them, and
// revoking some by their handles.

const (
	memberAccounts = 4 // accounts with a password, whose sessions share browsers
	memberPrefix   = "member-"
	noteProperty   = "note"
)

// roomy is a services.json for the clients of a ledger.
func roomy() map[string]any {
	s := services(map[string]any{"rotationGraceSeconds": 3600})
	s["requestTimeoutSeconds"] = 25 // others may use the machine too
	s["recentLoginSeconds"] = 0     // the same administrator asks for hours
	s["sessionProperties"] = []any{map[string]any{"name": noteProperty}}
	return s
}

// crowded is roomy with limits that are reached.
func crowded() map[string]any {
	s := roomy()
	defaults, _ := s["jsonActionApiDefaults"].(map[string]any)
	defaults["maxJsonApiSessions"], defaults["maxJsonApiSessionsPerUsername"] = totalLimit, accountLimit
	return s
}

// enlist creates the accounts with a password.
func (l *ledger) enlist(t *testing.T, p *process) {
	t.Helper()
	c := newClient(p, l.staff.admin.AuthToken)
	defer c.close()
	for n := range memberAccounts {
		c.must(t, "createAccount", params{"username": memberPrefix + fmt.Sprint(n), "password": adminPassword}, nil)
	}
}

// busy notes how long a client was busy with one thing.
func (l *ledger) busy(d time.Duration) {
	for {
		was := l.slowest.Load()
		if int64(d) <= was || l.slowest.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

// change calls an action that writes. Nothing is acknowledged any more once an
// answer has said that writing has stopped, or that an outcome is not known.
func (l *ledger) change(ctx context.Context, c *client, action string, p params, result any) error {
	stopped := l.stopped.Load()
	err := c.call(ctx, action, p, result)
	switch codeOf(err) {
	case 0:
		if stopped {
			return &wrong{falselyAcked, action}
		}
	case storageFailed, outcomeUnknown:
		l.stopped.Store(true)
		l.refusals.Add(1)
	case storageFull:
		l.refusals.Add(1)
	}
	return err
}

func (w *worker) as(token string) *client { return w.nobody.as(token) }

// logIn creates a session with a password, on the browser of another one if there
// is one.
func (w *worker) logIn(ctx context.Context) error {
	other := w.checkOutOne(func(r *record) bool { return r.token != "" && strings.HasPrefix(r.username, memberPrefix) })
	r := w.open(&record{op: w.nextOp(), realm: "native", username: memberPrefix + fmt.Sprint(rand.N(memberAccounts))})
	c, p := w.nobody, r.asked()
	p["password"] = adminPassword
	if other != nil {
		defer w.checkIn(other)
		c, p["joinClient"] = w.as(other.token), true
	}
	var made credential
	err := w.change(ctx, c, "createSession", p, &made)
	if codeOf(err) == overloaded { // the passwords of others are checked first
		w.refused(r)
		return nil
	}
	if err == nil && other != nil && made.ClientHandle != other.client {
		return fmt.Errorf("a session joined %s, not %s", made.ClientHandle, other.client)
	}
	_, err = w.made(r, &made, err)
	return err
}

// end ends a session in one of many ways.
func (w *worker) end(ctx context.Context) error {
	r := w.checkOutOne(func(r *record) bool { return r.token != "" })
	if r == nil {
		return nil
	}
	one := params{"sessionHandle": r.handle}
	way := []struct {
		by     *client
		action string
		params params
	}{
		{w.as(r.token), "deleteSession", nil},
		{w.as(r.token), "endSession", nil},
		{w.as(r.token), "logoutByHandle", params{"sessionHandles": []string{r.handle}}},
		{w.admin, "endSession", one},
		{w.admin, "removeSession", one},
		{w.admin, "deleteSession", params{"tokenId": r.token}},
		{w.admin, "revokeSessions", params{"filter": fmt.Sprintf("sessionHandle eq '%s'", r.handle), "includePermanent": true}},
	}[rand.N(7)]
	var done struct {
		AlreadyEnded bool
		Results      map[string]bool
		Revoked      *int
	}
	w.ending(r)
	err := w.change(ctx, way.by, way.action, way.params, &done)
	if err == nil && (done.AlreadyEnded || done.Revoked != nil && *done.Revoked != 1 || done.Results != nil && !done.Results[r.handle]) {
		return fmt.Errorf("%s: a session that lived had already ended: %s", way.action, r.op)
	}
	return w.settle(err, r)
}

// endOwn ends all sessions of the client's own account, in one of many ways.
func (w *worker) endOwn(ctx context.Context) error {
	account := params{"realm": "app", "username": w.account}
	with := func(name string, value any) params { return params{"realm": "app", "username": w.account, name: value} }
	level := with("includePermanent", true)
	level["level"] = "account"
	way := []struct {
		action string
		params params
		single bool // a write for each session
	}{
		{"revokeSessions", params{"accounts": []any{account}, "includePermanent": true}, false},
		{"revokeSessions", params{"filter": fmt.Sprintf("username eq '%s'", w.account), "includePermanent": true}, true},
		{"revokeAllSessions", level, false},
		{"logoutByUser", with("includePermanent", true), false},
		{"alterAccount", with("enabled", false), false},
		{"dropAccounts", params{"realm": "app", "usernames": []string{w.account}}, false},
	}[rand.N(6)]
	some := w.own
	w.own = nil
	w.ending(some...)
	for _, r := range some {
		if r.together = w.account; way.single {
			r.together = ""
		}
	}
	if way.action == "alterAccount" || w.faulty {
		w.account = w.anAccount()
	}
	var done struct{ Revoked, SessionsEnded int }
	err := w.change(ctx, w.admin, way.action, way.params, &done)
	if err == nil && done.Revoked+done.SessionsEnded != len(some) {
		return fmt.Errorf("%s ended %d of %d sessions", way.action, done.Revoked+done.SessionsEnded, len(some))
	}
	return w.settle(err, some...)
}

// anAccount returns the name of an account that nobody else uses.
func (l *ledger) anAccount() string { return "client-" + l.nextOp() }

// alter writes something into a session.
func (w *worker) alter(ctx context.Context) error {
	r := w.checkOutOne(func(r *record) bool { return r.token != "" })
	if r == nil {
		return nil
	}
	defer w.checkIn(r)
	value := w.nextOp()
	if rand.N(2) == 0 {
		return w.keep(&r.property, value, w.change(ctx, w.as(r.token), "updateSessionProperties", params{"properties": params{noteProperty: value}}, nil))
	}
	return w.keep(&r.setting, value, w.change(ctx, w.admin, "alterSession", params{"sessionHandle": r.handle, "defaultDatabaseName": value}, nil))
}

// keep notes how an alteration went.
func (w *worker) keep(k *kept, value string, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch code := codeOf(err); {
	case code == 0:
		*k = kept{is: value}
		w.changes++
		return nil
	case w.unsure(err):
		if code == outcomeUnknown {
			k.maybe = value
		}
		return nil
	case code < 0:
		k.maybe = value
	}
	return stopping(err)
}

// rotate replaces the token of a session, not more often than its old ones are known.
// If the answer is lost the old one is good as before.
func (w *worker) rotate(ctx context.Context) error {
	const known = 3
	r := w.checkOutOne(func(r *record) bool { return r.token != "" && r.rotations < known })
	if r == nil {
		return nil
	}
	defer w.checkIn(r)
	r.rotations++
	var made credential
	err := w.change(ctx, w.as(r.token), "rotateSession", nil, &made)
	if w.unsure(err) {
		return nil
	}
	if err != nil {
		return stopping(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.replaced = append(r.replaced, r.token)
	r.token = made.AuthToken
	w.changes++
	return nil
}

// refresh uses a session that lives and that nobody ends meanwhile.
func (w *worker) refresh(ctx context.Context) error {
	r := w.checkOutOne(func(r *record) bool { return r.token != "" })
	if r == nil {
		return nil
	}
	defer w.checkIn(r)
	err := w.as(r.token).call(ctx, "refresh", nil, nil)
	if codeOf(err) == invalidAuthToken {
		return &wrong{deadTokens, "a session that lives cannot be refreshed: " + r.op}
	}
	return stopping(err)
}
