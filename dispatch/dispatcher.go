// Package dispatch takes bytes in and gives bytes out: it holds the table of
// actions and the one path that every request takes through it.
//
// A request is decoded, its sender authenticated, its action found, his right to
// it checked, its params decoded, the handler run, and the answer encoded, in
// this order and in one function (Dispatcher.serve). Nothing wraps anything.
package dispatch

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/logging"
	"sessiond/internal/session"
)

// Deps are what a Dispatcher works with.
type Deps struct {
	Sessions *session.Keeper
	Config   *config.Holder
	Clock    clock.Clock
	Log      *logging.Logger
	APIs     *Switches // nil: nobody turns any
}

// Dispatcher answers requests out of a table of actions.
type Dispatcher struct {
	deps    Deps
	table   []Action
	byName  map[string]*Action // by name, and by lower-case name
	apis    map[string]string  // lower case → name
	gates   gates
	watches watches
	calls   sync.Pool
	counted atomic.Uint64
}

// New returns a dispatcher over a table, or every fault of the table.
func New(d Deps, table []Action) (*Dispatcher, error) {
	if d.APIs == nil {
		d.APIs = &Switches{}
	}
	dispatcher := &Dispatcher{
		deps: d, table: table, byName: map[string]*Action{}, gates: newGates(),
		apis: map[string]string{api.Admin: api.Admin, api.Session: api.Session, api.Hub: api.Hub},
	}
	var faults []error
	for i := range table {
		a := &table[i]
		if err := a.fault(); err != nil {
			faults = append(faults, err)
		}
		for _, name := range append([]string{a.Name}, a.Aliases...) {
			if dispatcher.byName[strings.ToLower(name)] != nil {
				faults = append(faults, fmt.Errorf("%s stands twice in the table", name))
			}
			dispatcher.byName[strings.ToLower(name)] = a
			dispatcher.byName[name] = a // as nearly everybody writes it
		}
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("dispatch: %w", errors.Join(faults...))
	}
	return dispatcher, nil
}

// Uncounted returns how many requests were answered without a line in the log
// since the last call.
func (d *Dispatcher) Uncounted() uint64 { return d.counted.Swap(0) }

// Call is one request, as its handler sees it: all but who sent it.
type Call struct {
	Config    *config.Config   // one snapshot for the whole request
	Settings  *config.Settings // the caller's session's, else the configuration's
	Now       int64            // Unix seconds of the request's arrival
	Reach     session.Reach    // whose objects the action may see or change
	Address   netip.Addr       // the client's
	UserAgent string           // the client's; a copy is to be kept
	Token     api.Secret       // the token that was shown, if it belongs to a live session
	DeadToken api.Secret       // the token that was shown, if it belongs to no live session
	Known     []byte           // what validate answers about the caller's account, see session.Keeper.Check
	InBatch   bool             // others wait for its answer, in one request's time
	Scratch   []byte           // for results that borrow memory until they are written

	stale    bool // he lacks reach for want of a recent log-in
	warnings []api.Warning
	issued   api.Secret
	made     api.ID
}

// Denied returns why a caller may not reach what belongs to others: he lacks the
// permission, or a recent log-in.
func (c *Call) Denied(p account.Permissions) *api.Error {
	if c.stale {
		return reauthenticate()
	}
	return api.Errorf(api.PermissionDenied, "the caller needs the permission %s", account.PermissionName(p))
}

// Recent returns why the caller may not do what wants a recent log-in; nil: he may.
func (c *Call) Recent(who *session.Caller) error {
	if isStale(c, who) {
		return reauthenticate()
	}
	return nil
}

// Warn adds a warning to what debug shows.
func (c *Call) Warn(code api.Code, message string) {
	c.warnings = append(c.warnings, api.Warning{Code: code, Message: message})
}

// Issue lets a new token take the top-level place of the answer.
func (c *Call) Issue(token api.Secret) { c.issued = token }

// Made names, for the log, the session that the request made.
func (c *Call) Made(h api.ID) { c.made = h }

// find returns the action of an api, as far as the configuration enables it.
func (d *Dispatcher) find(cfg *config.Config, apiName, action string) (string, *Action, error) {
	name, ok := d.apis[apiName]
	if !ok {
		name, ok = d.apis[strings.ToLower(apiName)]
	}
	state := api.Stopped
	if ok {
		state = d.deps.APIs.State(cfg, name)
	}
	switch state {
	case api.Running:
	case api.Paused:
		return name, nil, paused(name)
	case api.Stopped:
		return "", nil, api.Errorf(api.UnknownAPI, "there is no such api, or it is switched off: use admin, session or hub").At("/api")
	}
	a := d.byName[action]
	if a == nil {
		a = d.byName[strings.ToLower(action)]
	}
	if a == nil || !a.in(cfg, name) {
		return name, nil, api.Errorf(api.UnknownAction, "the api %s has no such action: listActions lists them", name).At("/action")
	}
	return name, a, nil
}

// pauseSeconds is how long a client is asked to wait for a paused api.
const pauseSeconds = 10

func paused(name string) *api.Error {
	e := api.Errorf(api.ShuttingDown, "an operator has paused the api %s: nothing was done, repeat after retryAfterSeconds", name)
	e.Data.RetryAfterSeconds = pauseSeconds
	return e
}

// in reports whether an api has the action: hub has what any enabled one has.
func (a *Action) in(cfg *config.Config, name string) bool {
	if name == api.Hub {
		return slices.ContainsFunc(a.APIs, func(other string) bool { return cfg.APIs[other] })
	}
	return slices.Contains(a.APIs, name)
}
