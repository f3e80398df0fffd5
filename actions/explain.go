package actions

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
)

// explanations holds what tells why a session ends.
func (s *sessions) explanations() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "explainSession", APIs: both(), Work: dispatch.Reading, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc: "Tells which rule will end a session, when, and what would put that off; of one that has ended, as long as it is kept, what ended it, when, and who. " +
				"An ended one is named by its handle.",
			Errors: []api.Code{api.NotFound},
		}, s.explain),
	}
}

type explainResult struct {
	SessionHandle  string    `json:"sessionHandle" doc:"The session's public name."`
	Status         string    `json:"status" doc:"As describeSessions has it."`
	EndsBy         string    `json:"endsBy,omitzero" doc:"The rule that will end it if nothing changes, the first of rules; absent: none will, or it has ended."`
	EndsTimestamp  time.Time `json:"endsTimestamp,omitzero" doc:"When that will be."`
	Rules          []endRule `json:"rules" doc:"All rules that will end it, the earliest first; empty where none will, or where it has ended."`
	EndedTimestamp time.Time `json:"endedTimestamp,omitzero" doc:"When it ended."`
	EndReason      string    `json:"endReason,omitzero" doc:"What ended it, as describeSessions has it."`
	EndedBy        string    `json:"endedBy,omitzero" doc:"The handle of the session that ended it; absent: the server."`
	KeptUntil      time.Time `json:"keptUntilTimestamp,omitzero" doc:"Until when what is known of an ended session is kept, by services.json as it is now; absent: for ever."`
	Explanation    string    `json:"explanation" doc:"The same in words, for people."`
}

type endRule struct {
	Rule        string    `json:"rule" enum:"idleTimeout,sessionTimeout,accountDisabled" doc:"idleTimeout, sessionTimeout, or accountDisabled: the endReason that it will have."`
	Timestamp   time.Time `json:"timestamp" doc:"When it ends the session."`
	SecondsLeft int64     `json:"secondsLeft" doc:"How long that is from now."`
	Tolerance   int64     `json:"toleranceSeconds,omitzero" doc:"Of idleTimeout: how much later than maxIdleExpirationTimestamp that is; absent: not at all."`
	ExtendedBy  string    `json:"extendedBy" doc:"What would put it off, for people."`
}

func (s *sessions) explain(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (explainResult, error) {
	var h api.ID
	if p.SessionHandle != "" {
		h, _ = session.ParseHandle(p.SessionHandle)
	} else {
		live, err := s.living(c, who, &p, account.SessionsValidate)
		if err != nil {
			return explainResult{}, err
		}
		h = live.Handle
	}
	v, err := s.Sessions.Get(ctx, h)
	if errors.Is(err, store.ErrNotFound) || (err == nil && p.SessionHandle != "" && !c.Reach.Covers(v.AccountID)) {
		return explainResult{}, s.gone(who, h)
	}
	if err != nil {
		return explainResult{}, err
	}
	r := explainResult{SessionHandle: session.HandleText(v.Handle), Status: v.Status().String(), Rules: []endRule{}}
	if !v.Live {
		r.EndedTimestamp, r.EndReason, r.EndedBy = at(v.End.At), v.End.Reason, v.End.By
		if retention := c.Config.Defaults.Retention(); retention > 0 {
			r.KeptUntil = at(v.End.At).Add(retention)
		}
		r.Explanation = ended(&v)
		return r, nil
	}
	if r.Rules, err = s.rulesOf(ctx, c, &v); err != nil {
		return explainResult{}, err
	}
	r.Explanation = "nothing will end it by itself: it lives until somebody ends it"
	if len(r.Rules) > 0 {
		first := r.Rules[0]
		r.EndsBy, r.EndsTimestamp, r.Explanation = first.Rule, first.Timestamp, explanationOf(&first)+"; "+first.ExtendedBy
	}
	return r, nil
}

// rulesOf returns the rules that will end a living session, the earliest first.
func (s *sessions) rulesOf(ctx context.Context, c *dispatch.Call, v *session.View) ([]endRule, error) {
	rules := []endRule{}
	add := func(reason string, unix int64, extendedBy string) {
		if left := until(unix, c.Now); left != nil {
			rules = append(rules, endRule{Rule: reason, Timestamp: at(unix), SecondsLeft: *left, ExtendedBy: extendedBy})
		}
	}
	add(session.ReasonLifetime, v.MaxAt, "nothing moves the end of its lifetime: a new log-in begins another one")
	a, err := s.Accounts.Named(ctx, v.Realm, v.Username)
	if err != nil {
		return nil, err
	}
	if a != nil && a.ID == v.AccountID && !a.DisableAt.IsZero() {
		add(session.ReasonAccountDisabled, a.DisableAt.Unix(), "alterAccount moves disableDatetime")
	}
	add(session.ReasonIdle, v.IdleEnd(), "any use puts it off, as refresh and validate do; alterSession changes idleConnectionTimeoutSeconds")
	if n := len(rules) - 1; n >= 0 && rules[n].Rule == session.ReasonIdle {
		rules[n].Tolerance = v.Tolerance
	}
	slices.SortStableFunc(rules, func(a, b endRule) int { return cmp.Compare(a.SecondsLeft, b.SecondsLeft) })
	return rules, nil
}

// explanationOf says what a rule does.
func explanationOf(r *endRule) string {
	switch {
	case r.Rule == session.ReasonIdle && r.Tolerance > 0:
		return "it expires when it has not been used for its idle time and the tolerance after it"
	case r.Rule == session.ReasonIdle:
		return "it expires when it has not been used for its idle time"
	case r.Rule == session.ReasonLifetime:
		return "it expires at the end of its lifetime"
	default:
		return "its account is disabled from then on"
	}
}

// ended says how a session ended.
func ended(v *session.View) string {
	text := endedBecause(v.End.Status, v.End.Reason)
	if v.End.Status == session.Removed && v.End.Reason != session.ReasonLogout {
		text += "; it was taken off its browser or device afterwards"
	}
	if v.Abandoned {
		text += "; nobody has come back to it since, so that it counts as abandoned"
	}
	return text
}

// endedBecause explains the server's own reasons where the status goes with them:
// whoever revokes a session may give it any other.
func endedBecause(status session.Status, reason string) string {
	type end struct {
		status session.Status
		reason string
	}
	text, ok := map[end]string{
		{session.Ended, session.ReasonLogout}:             "it was logged out",
		{session.Ended, ""}:                               "its end is being written, or could not be: it is dead all the same",
		{session.Removed, session.ReasonLogout}:           "it was logged out, and taken off its browser or device",
		{session.Removed, session.ReasonIdle}:             "it had not been used for its idle time",
		{session.Removed, session.ReasonLifetime}:         "its lifetime was over",
		{session.Expired, session.ReasonIdle}:             "it had not been used for its idle time",
		{session.Expired, session.ReasonLifetime}:         "its lifetime was over",
		{session.Revoked, session.ReasonRevoked}:          "it was revoked",
		{session.Revoked, session.ReasonPasswordChanged}:  "the password of its account was changed",
		{session.Revoked, session.ReasonMassLogout}:       "all sessions of its server, realm or account were ended",
		{session.Revoked, session.ReasonAccountDisabled}:  "its account was disabled, or its time was over",
		{session.Revoked, session.ReasonAccountDropped}:   "its account was dropped",
		{session.Revoked, session.ReasonTokenTheft}:       "an old token of it was used after it had been replaced: it may have been stolen",
		{session.Revoked, session.ReasonRestored}:         "a backup took the place of the server's data",
		{session.Revoked, session.ReasonClockAccepted}:    "it had got its times from a clock that was ahead, and the machine's clock was accepted again",
		{session.Replaced, session.ReasonReauthenticated}: "a new log-in took over from it",
	}[end{status, reason}]
	if ok {
		return text
	}
	if status == session.Replaced {
		return "a new session of its account needed its place: endReason names the limit that left no other, and onSessionLimit says who makes room"
	}
	return map[session.Status]string{
		session.Ended:   "it was logged out",
		session.Removed: "it had ended",
		session.Revoked: "it was ended from elsewhere",
		session.Expired: "it expired",
	}[status] + ", for the reason that endReason gives"
}
