package actions

import (
	"context"
	"errors"
	"fmt"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
	"sessiond/store"
)

// alterations holds what changes the settings of sessions.
func (s *sessions) alterations() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "alterSession", APIs: both(), Work: dispatch.Writing, Allow: dispatch.Callers().Others(account.SessionsWrite),
			Doc: "Changes settings of a session, within the caps of services.json, and shows it. What is not named stays as it is. " +
				"With a filter it changes those of all sessions that the filter finds, but for those that have them already, one by one, 100,000 at the most and as long as the request may take: more says that it is to be repeated. " +
				"To reach those of others by a filter wants a recent log-in.",
			Errors: []api.Code{api.NotFound, api.Conflict, api.ReauthenticationRequired},
		}, s.alter),
	}
}

type alterParams struct {
	target

	Filter *string `json:"filter" min:"1" max:"4096" null:"no" doc:"The living sessions that this filter finds, in place of one."`
	DryRun bool    `json:"dryRun,omitzero" doc:"With filter: alters nothing and tells what would be."`

	settingParams
}

func (p *alterParams) Validate() error {
	switch {
	case p.Filter != nil && !p.isZero():
		return bad("filter", "must not stand beside sessionHandle and tokenId: send one of them")
	case p.Filter != nil && p.settingParams == (settingParams{}):
		return bad("filter", "wants a setting beside it, such as description: nothing would be altered")
	case p.Filter == nil && p.DryRun:
		return bad("dryRun", "goes with filter")
	}
	return p.target.Validate()
}

// change alters a session's record.
func (p *alterParams) change(d *config.Defaults) func(*session.Record) error {
	return func(r *session.Record) error {
		idle, err := p.idle(r.IdleSeconds, r.Permanent, d)
		if err != nil {
			return err
		}
		r.IdleSeconds = idle
		p.apply(&r.Settings)
		set(&r.Description, p.Description)
		set(&r.CursorSeconds, p.IdleCursorTimeoutSeconds)
		return nil
	}
}

// changesNothing reports whether a session is already as it would be. Such ones are
// passed over where many are altered, so that a request that was cut short gets on
// when it is repeated.
func (p *alterParams) changesNothing(r *session.Record, d *config.Defaults) bool {
	to := *r
	return p.change(d)(&to) == nil && to.Equal(r)
}

// alterResult is the one session, or what was done to those that a filter finds.
type alterResult struct {
	*sessionView
	*alteredFound
}

type alteredFound struct {
	Altered int64    `json:"altered" doc:"For a filter: how many sessions were altered, or would be."`
	Skipped int64    `json:"skipped" doc:"For a filter: how many are of a kind that does not take the idle time, API keys or others, and stay as they are."`
	DryRun  bool     `json:"dryRun,omitzero" doc:"Nothing was altered."`
	Sample  []string `json:"sample,omitzero" doc:"For a dry run: handles of some of the sessions."`
	Left    int64    `json:"left" doc:"For a filter: how many of the sessions that are to be altered were not, or would not be."`
	More    bool     `json:"more" doc:"For a filter: repeat the request, there are sessions left."`
}

func (s *sessions) alter(ctx context.Context, c *dispatch.Call, who *session.Caller, p alterParams) (alterResult, error) {
	if p.Filter != nil {
		all, err := s.alterFound(ctx, c, who, &p)
		return alterResult{alteredFound: &all}, err
	}
	live, err := s.living(c, who, &p.target, 0)
	if err != nil {
		return alterResult{}, err
	}
	p.warn(c)
	v, err := s.Sessions.Alter(ctx, live.Handle, s.Sessions.Actor(who), p.change(&c.Config.Defaults))
	if errors.Is(err, store.ErrNotFound) {
		return alterResult{}, s.gone(who, live.Handle)
	}
	if err != nil {
		return alterResult{}, fmt.Errorf("alter session: %w", err)
	}
	view := s.view(c, &v, who)
	return alterResult{sessionView: &view}, nil
}

// alterFound alters the sessions that a filter finds, or for a dry run tells what it
// would alter. What no session may have is refused before any is altered.
func (s *sessions) alterFound(ctx context.Context, c *dispatch.Call, who *session.Caller, p *alterParams) (alteredFound, error) {
	if err := p.idleInCap(&c.Config.Defaults); err != nil {
		return alteredFound{}, err
	}
	p.warn(c)
	d, err := s.doFound(ctx, c, who, &job{
		filter: *p.Filter, dryRun: p.DryRun,
		stored: true,
		takes: func(v *session.View) verdict {
			switch {
			case !p.idleFits(v.Permanent):
				return spare
			case p.changesNothing(v.Record, &c.Config.Defaults):
				return pass
			}
			return take
		},
		do: func(ctx context.Context, handles []api.ID) (n int, err error) {
			altered, err := s.Sessions.AlterAll(ctx, handles, s.Sessions.Actor(who), p.change(&c.Config.Defaults))
			for _, ok := range altered {
				if ok {
					n++
				}
			}
			return n, err
		},
	})
	return alteredFound{Altered: d.done, Skipped: d.spared, DryRun: p.DryRun, Sample: d.sample, Left: d.left, More: d.more}, err
}
