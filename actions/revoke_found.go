package actions

import (
	"context"
	"slices"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/session"
)

const (
	maxRevoked  = 100_000 // by one filter
	revokeChunk = 1000    // that are ended before the time is looked at
)

// revokeFound ends the sessions that a filter finds, or for a dry run tells what
// it would end. What there is no time for is left.
func (s *sessions) revokeFound(ctx context.Context, c *dispatch.Call, who *session.Caller, p *revokeParams) (revokeResult, error) {
	// The request has to be answered in its time, and a commit that is under way to be awaited.
	enough, cancel := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok {
		enough, cancel = context.WithDeadline(ctx, deadline.Add(-c.Config.RequestTimeout.Duration()/5))
	}
	defer cancel()
	v, err := s.victims(enough, c, who, p)
	cut := enough.Err() != nil && ctx.Err() == nil
	if err != nil && !cut {
		return revokeResult{}, err
	}
	v.own = v.own && !cut
	r := revokeResult{DryRun: p.DryRun, PermanentLeft: v.keys}
	chosen := v.chosen(who)
	tried := int64(len(chosen))
	if p.DryRun {
		r.Revoked, r.Sample = tried, sample(chosen)
	} else if tried, err = s.endInTime(ctx, enough, who, chosen, p, &r); err != nil {
		if r.Revoked > 0 {
			err = partly(err, r.Revoked, v.count-r.Revoked)
		}
		return r, err
	}
	left := v.count - tried
	more := left > 0 || cut
	r.Left, r.More = &left, &more
	return r, nil
}

// endInTime ends sessions until there is time enough no longer, and returns how
// many it came to. How many of those it ended is added to r.
func (s *sessions) endInTime(ctx, enough context.Context, who *session.Caller, handles []api.ID, p *revokeParams, r *revokeResult) (tried int64, err error) {
	for chunk := range slices.Chunk(handles, revokeChunk) {
		if enough.Err() != nil {
			break
		}
		done, err := s.endAll(ctx, who, chunk, p)
		r.Revoked += int64(len(done))
		if err != nil {
			return tried, err
		}
		tried += int64(len(chunk))
	}
	return tried, nil
}

// victims are the sessions that a filter finds to be ended.
type victims struct {
	handles []api.ID // of as many as one request ends, without the caller's own
	own     bool     // the caller's own is among them
	count   int64
	keys    int64 // that are spared
}

// victims finds the sessions that a request is about. An error leaves those that
// were found until then.
func (s *sessions) victims(ctx context.Context, c *dispatch.Call, who *session.Caller, p *revokeParams) (v victims, err error) {
	q, err := s.newSearch(c, who, p.Filter, at(c.Now))
	if err != nil {
		return v, err
	}
	q.ended = false // what has ended is not ended again
	err = q.each(ctx, api.ID{}, func(view *session.View) bool {
		switch {
		case p.ExceptCurrent && view.Handle == who.Handle:
			return true
		case view.Permanent && (p.IncludePermanent == nil || !*p.IncludePermanent):
			v.keys++
			return true
		case view.Handle == who.Handle:
			v.own = true
		case len(v.handles) < maxRevoked:
			v.handles = append(v.handles, view.Handle)
		}
		v.count++
		return true
	})
	return v, err
}

// chosen are those that this request ends. The caller's own session is the last
// of all: as long as there are others he has to be able to repeat the request.
func (v *victims) chosen(who *session.Caller) []api.ID {
	if v.own && len(v.handles) < maxRevoked && int64(len(v.handles))+1 == v.count {
		return append(v.handles, who.Handle)
	}
	return v.handles
}

type logoutByHandleParams struct {
	SessionHandles []string `json:"sessionHandles" min:"1" max:"1000" doc:"The sessions."`
	Reason         string   `json:"reason,omitzero" max:"256" doc:"Kept with each session that this ends."`
}

func (p *logoutByHandleParams) Validate() error {
	return (&selection{SessionHandles: p.SessionHandles}).Validate()
}

type logoutByHandleResult struct {
	Results map[string]bool `json:"results" doc:"Whether each was ended."`
	Revoked int64           `json:"revoked" doc:"How many were."`
}

func (s *sessions) logoutByHandle(ctx context.Context, c *dispatch.Call, who *session.Caller, p logoutByHandleParams) (logoutByHandleResult, error) {
	r, err := s.revoke(ctx, c, who, revokeParams{SessionHandles: p.SessionHandles, Reason: p.Reason})
	return logoutByHandleResult{Results: r.Results, Revoked: r.Revoked}, err
}
