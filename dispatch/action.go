package dispatch

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/internal/wire"
)

// Spec is what a table entry says of an action.
type Spec struct {
	Name    string
	Aliases []string // other names of the same action
	APIs    []string // api.Admin, api.Session; api.Hub has whatever another one has
	Doc     string   // one or two sentences for the reference
	Allow   Rule
	Errors  []api.Code // its own, beside those that any request may meet

	Work      Work // what it keeps busy, and so how it fares under load
	KeepsIdle bool // the use does not count against the caller's idle time
	AnyToken  bool // a dead token is the handler's affair, see Call.DeadToken
	Uncounted bool // a success leaves no line in the log
}

// Action is an entry of the table. Public, Optional and Protected make one, and
// so decide what its handler gets; the zero Action is refused.
type Action struct {
	Spec
	takes  taking
	params *wire.Shape
	result *wire.Shape
	run    func(ctx context.Context, c *Call, who *session.Caller, params, dst []byte) ([]byte, error)
	err    error // why it could not be made
}

type taking uint8

const (
	noCaller taking = 1 + iota
	perhapsCaller
	aCaller
)

// Public makes an action that anybody may call. Its handler has no caller to
// trust.
func Public[P, R any](spec Spec, h func(context.Context, *Call, P) (R, error)) Action {
	return entry(spec, noCaller, func(ctx context.Context, c *Call, _ *session.Caller, p P) (R, error) { return h(ctx, c, p) })
}

// Optional makes an action that anybody may call; its handler is told who calls
// if somebody does, else nil.
func Optional[P, R any](spec Spec, h func(context.Context, *Call, *session.Caller, P) (R, error)) Action {
	return entry(spec, perhapsCaller, h)
}

// Protected makes an action for callers only. Its handler always has one.
func Protected[P, R any](spec Spec, h func(context.Context, *Call, *session.Caller, P) (R, error)) Action {
	return entry(spec, aCaller, h)
}

func entry[P, R any](spec Spec, takes taking, h func(context.Context, *Call, *session.Caller, P) (R, error)) Action {
	a := Action{Spec: spec, takes: takes}
	if a.params, a.err = wire.Describe[P](); a.err != nil {
		return a
	}
	if a.result, a.err = wire.Describe[R](); a.err != nil {
		return a
	}
	type frame struct {
		params P
		result R
	}
	frames := sync.Pool{New: func() any { return new(frame) }}
	shape := a.params
	a.run = func(ctx context.Context, c *Call, who *session.Caller, params, dst []byte) ([]byte, error) {
		f, ok := frames.Get().(*frame)
		if !ok {
			f = new(frame)
		}
		defer func() {
			*f = frame{} // params hold secrets
			frames.Put(f)
		}()
		err := shape.Decode(params, &f.params)
		if err != nil {
			return dst, err
		}
		if f.result, err = h(ctx, c, who, f.params); err != nil {
			return dst, err
		}
		return wire.Append(dst, &f.result)
	}
	return a
}

// A Rule says who may call an action, with which credential, and whose objects
// it reaches. The zero Rule lets nobody in.
type Rule struct {
	who      access
	needs    account.Permissions // each of them
	others   account.Permissions // reaches the objects of others
	sessions bool                // no API keys
	recent   recency
}

// recency is what wants a recent log-in.
type recency uint8

const (
	nothingRecent recency = iota
	othersRecent          // reaching the objects of others
	allRecent
)

type access uint8

const (
	nobody access = iota
	anyone
	callers
)

// Anyone lets everybody in, with or without a token.
func Anyone() Rule { return Rule{who: anyone} }

// Callers lets in whoever shows a live token.
func Callers() Rule { return Rule{who: callers} }

// Holders lets in callers that hold a permission.
func Holders(p account.Permissions) Rule { return Rule{who: callers, needs: p} }

// Others lets holders of a permission reach what belongs to other accounts;
// without it a caller reaches his own.
func (r Rule) Others(p account.Permissions) Rule {
	r.others = p
	return r
}

// SessionsOnly refuses API keys.
func (r Rule) SessionsOnly() Rule {
	r.sessions = true
	return r
}

// Recent wants a recent log-in, of sessions: what is sensitive is not done by
// somebody who found one open, or stole it. An API key has no log-in; its rights
// are what bounds it.
func (r Rule) Recent() Rule {
	r.recent = allRecent
	return r
}

// RecentForOthers is Recent where objects of others are reached.
func (r Rule) RecentForOthers() Rule {
	r.recent = othersRecent
	return r
}

// isStale reports whether the log-in of a caller's session was too long ago for
// what wants a recent one.
func isStale(c *Call, who *session.Caller) bool {
	window := c.Config.RecentLoginSeconds
	return who != nil && !who.IsKey() && window > 0 && c.Now-who.Authenticated > window
}

func reauthenticate() *api.Error {
	return api.Errorf(api.ReauthenticationRequired, "this wants a recent log-in: call createSession with this authToken, reauthenticate, username and password, and go on with the new one; where no password is checked, have a new session issued")
}

// check returns why a caller may not; nil stands for nobody.
func (r Rule) check(c *Call, who *session.Caller) error {
	switch {
	case r.who == anyone:
		return nil
	case r.who == nobody:
		return api.Errorf(api.PermissionDenied, "nobody may call this action")
	case who == nil:
		return InvalidToken()
	case r.sessions && who.IsKey():
		return api.Errorf(api.KindNotAllowed, "an API key may not do this: log in and use the session")
	case r.needs != 0 && !who.May(r.needs):
		return api.Errorf(api.PermissionDenied, "the caller needs the permission %s", strings.Join(r.needs.Names(), ", "))
	case r.recent == allRecent && isStale(c, who):
		return reauthenticate()
	}
	return nil
}

// reach returns whose objects a caller may see or change under the rule.
func (r Rule) reach(c *Call, who *session.Caller) session.Reach {
	if who == nil {
		return session.Reach{}
	}
	all := who.May(r.others)
	if c.stale = all && r.recent == othersRecent && isStale(c, who); c.stale {
		all = false
	}
	return session.Reach{Account: who.AccountID, All: all}
}

// String returns the rule as the reference shows it.
func (r Rule) String() string {
	var text string
	switch {
	case r.who == anyone:
		text = "anybody"
	case r.who == nobody:
		return "nobody"
	case r.needs != 0:
		text = "holders of " + strings.Join(r.needs.Names(), ", ")
	default:
		text = "any caller"
	}
	if r.sessions {
		text += ", with a session and not an API key"
	}
	if r.others != 0 && r.others != r.needs {
		text += "; what belongs to others with " + strings.Join(r.others.Names(), ", ")
	}
	if r.recent != nothingRecent {
		text += ", after a recent log-in"
	}
	return text
}

// InvalidToken is the one answer to whatever is wrong with a caller's token.
func InvalidToken() *api.Error {
	return api.Errorf(api.InvalidAuthToken, "the authToken belongs to no live session: call createSession")
}

// fault returns what is wrong with an entry.
func (a *Action) fault() error {
	switch {
	case a.err != nil:
		return fmt.Errorf("%s: %w", a.Name, a.err)
	case a.Name == "" || a.run == nil:
		return fmt.Errorf("an action was not made by Public, Optional or Protected")
	case a.Doc == "":
		return fmt.Errorf("%s has no doc", a.Name)
	case len(a.APIs) == 0:
		return fmt.Errorf("%s belongs to no api", a.Name)
	case a.Allow.who == nobody:
		return fmt.Errorf("%s does not say who may call it", a.Name)
	case (a.takes == aCaller) != (a.Allow.who == callers):
		return fmt.Errorf("%s: its handler and its rule disagree about whether there is a caller", a.Name)
	}
	return nil
}
