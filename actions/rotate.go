package actions

import (
	"context"
	"errors"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
)

// rotation holds what gives a session another token.
func (s *sessions) rotation() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "rotateSession", APIs: both(), Work: dispatch.Writing, Allow: dispatch.Callers().Others(account.SessionsValidate),
			Doc: "Gives the session of the token that is shown a new one: the caller's own unless tokenId names another. The old one is good for rotationGraceSeconds more, " +
				"in which it is answered with the same new one. Shown later it ends the session, since one of the two was stolen; that of an API key just stops working. The last three old ones are known.",
			Errors: []api.Code{api.NotFound, api.Conflict},
		}, s.rotate),
	}
}

type rotateParams struct {
	TokenID *api.Secret `json:"tokenId" max:"255" null:"no" doc:"The token that is to be replaced; the caller's own unless named."`
}

func (s *sessions) rotate(ctx context.Context, c *dispatch.Call, who *session.Caller, p rotateParams) (sessionView, error) {
	token := c.Token
	if p.TokenID != nil {
		token = *p.TokenID
		if found, ok := s.Sessions.Authenticate(token.Reveal(), false); !ok || !c.Reach.Covers(found.AccountID) {
			return sessionView{}, notFound("session")
		}
	}
	v, next, err := s.Sessions.Rotate(ctx, token, s.Sessions.Actor(who))
	if errors.Is(err, store.ErrNotFound) {
		if p.TokenID == nil {
			return sessionView{}, dispatch.InvalidToken()
		}
		return sessionView{}, notFound("session")
	}
	if err != nil {
		return sessionView{}, err
	}
	view := s.view(c, &v, who)
	view.AuthToken = next.Reveal()
	if v.Handle == who.Handle {
		c.Issue(next)
	}
	return view, nil
}
