package actions

import (
	"context"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
)

// statistics holds what tells how many sessions there are.
func (s *sessions) statistics() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "sessionStatistics", APIs: admin(), Work: dispatch.Reading, Allow: dispatch.Holders(account.SessionsRead),
			Doc: "Tells how many sessions live, by kind, realm and age, how many have ended, by status, what happened in the last minute, hour and day, " +
				"and which accounts have the most. It costs the same whatever the number of sessions is.",
		}, s.showStatistics),
	}
}

type statisticsResult struct {
	Living        livingView     `json:"living" doc:"Living sessions."`
	Realms        []realmCount   `json:"realms" doc:"The same by realm."`
	Limits        []limitView    `json:"limits" doc:"The server's limits and what counts against them."`
	Tombstones    waitingView    `json:"tombstones" doc:"Ended sessions that are kept, by status."`
	Rates         ratesView      `json:"rates" doc:"What happened lately."`
	AsOfTimestamp time.Time      `json:"asOfTimestamp" doc:"When ages and topAccounts were counted: all else is of this moment."`
	Ages          agesView       `json:"ages" doc:"Living sessions by the time since their creation; each once."`
	TopAccounts   []accountCount `json:"topAccounts" doc:"The ten accounts with the most living sessions, the most first."`
}

type livingView struct {
	Sessions  int64 `json:"sessions" doc:"All of them."`
	Temporary int64 `json:"temporary" doc:"Those that are no API keys."`
	Permanent int64 `json:"permanent" doc:"API keys."`
	Active    int64 `json:"active" doc:"Those of status active."`
	Pending   int64 `json:"pending" doc:"Those of status pending."`
}

type realmCount struct {
	Realm     string `json:"realm" doc:"The realm; one that services.json names no more has sessions too."`
	Sessions  int64  `json:"sessions" doc:"Its living sessions."`
	Temporary int64  `json:"temporary" doc:"Those that are no API keys."`
	Permanent int64  `json:"permanent" doc:"API keys."`
}

type limitView struct {
	Limit   string `json:"limit" doc:"As in services.json, and in errorData of a refusal."`
	Max     int64  `json:"max" doc:"The limit; 0: there is none."`
	Current int64  `json:"current" doc:"How many sessions count, those that are being created among them."`
}

type endedView struct {
	Ended    int64 `json:"ended" doc:"Logged out."`
	Removed  int64 `json:"removed" doc:"Logged out, and off their clients."`
	Revoked  int64 `json:"revoked" doc:"Ended from elsewhere."`
	Expired  int64 `json:"expired" doc:"Idle or past their lifetime; abandoned ones too, which are expired ones of old."`
	Replaced int64 `json:"replaced" doc:"Evicted by a limit, or superseded on re-authentication."`
}

type waitingView struct {
	endedView
	Waiting int64 `json:"waiting" doc:"Dead, but not yet sorted by status: a second's work, or that of a mass logout."`
}

type ratesView struct {
	SinceTimestamp time.Time    `json:"sinceTimestamp" doc:"When the server began to count: what was before is in none of the windows."`
	LastMinute     happenedView `json:"lastMinute" doc:"To a second."`
	LastHour       happenedView `json:"lastHour" doc:"To a minute."`
	LastDay        happenedView `json:"lastDay" doc:"To a quarter of an hour."`
}

type happenedView struct {
	Created int64         `json:"created" doc:"Sessions that were created."`
	Ended   endedView     `json:"ended" doc:"Sessions whose end was written, by status."`
	Refused []refusedView `json:"refused" doc:"Answers of createSession with a code of log-ins, permissions, limits or load; those that there were."`
}

type refusedView struct {
	ErrorCode int64  `json:"errorCode" doc:"The code."`
	ErrorName string `json:"errorName" doc:"Its name, as in the reference."`
	Count     int64  `json:"count" doc:"How many."`
}

type agesView struct {
	UnderHour   int64 `json:"underHour" doc:"Younger than an hour."`
	UnderDay    int64 `json:"underDay" doc:"Of an hour or more, younger than a day."`
	Under7Days  int64 `json:"under7Days" doc:"Of a day or more, younger than 7 days."`
	Under30Days int64 `json:"under30Days" doc:"Of 7 days or more, younger than 30 days."`
	Older       int64 `json:"older" doc:"Of 30 days or more."`
}

type accountCount struct {
	Realm     string `json:"realm" doc:"Where the account is checked."`
	Username  string `json:"username" doc:"The account's name."`
	Sessions  int64  `json:"sessions" doc:"Its living sessions, API keys among them."`
	Permanent int64  `json:"permanent" doc:"How many of them are API keys."`
}

func (s *sessions) showStatistics(ctx context.Context, c *dispatch.Call, _ *session.Caller, _ empty) (statisticsResult, error) {
	n, err := s.Sessions.Statistics(ctx)
	if err != nil {
		return statisticsResult{}, err
	}
	living := n.Living
	r := statisticsResult{
		Living:     livingView{living.Sessions, living.Sessions - living.Permanent, living.Permanent, living.Sessions, 0},
		Realms:     make([]realmCount, len(n.Realms)),
		Limits:     []limitView{{"maxJsonApiSessions", c.Config.Defaults.MaxSessions, n.Taken}},
		Tombstones: waitingView{endedOf(&n.Tombstones), n.Waiting},
		Rates:      ratesView{at(n.Since), happenedOf(&n.LastMinute), happenedOf(&n.LastHour), happenedOf(&n.LastDay)},

		AsOfTimestamp: at(n.At),
		Ages:          agesView{n.Ages[0], n.Ages[1], n.Ages[2], n.Ages[3], n.Ages[4]},
		TopAccounts:   make([]accountCount, len(n.Top)),
	}
	for i, of := range n.Realms {
		r.Realms[i] = realmCount{of.Realm, of.Sessions, of.Sessions - of.Permanent, of.Permanent}
	}
	for i, of := range n.Top {
		r.TopAccounts[i] = accountCount(of)
	}
	return r, nil
}

func endedOf(n *session.Tally) endedView {
	return endedView{n[session.Ended], n[session.Removed], n[session.Revoked], n[session.Expired], n[session.Replaced]}
}

func happenedOf(h *session.Happened) happenedView {
	v := happenedView{Created: h.Created, Ended: endedOf(&h.Ended), Refused: make([]refusedView, len(h.Refused))}
	for i, of := range h.Refused {
		v.Refused[i] = refusedView{int64(of.Code), of.Code.Info().Name, of.Count}
	}
	return v
}

// createCounted is create, whose refusals are counted.
func (s *sessions) createCounted(ctx context.Context, c *dispatch.Call, who *session.Caller, p createParams) (createResult, error) {
	r, err := s.create(ctx, c, who, p)
	if err != nil {
		s.Sessions.NoteRefusal(api.FromError(err).Code)
	}
	return r, err
}
