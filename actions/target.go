package actions

import (
	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
)

// target selects the session that an action is about; neither member: the
// caller's own.
type target struct {
	SessionHandle string      `json:"sessionHandle,omitzero" min:"1" max:"64" null:"no" doc:"The session, by its handle; the caller's own unless named."`
	TokenID       *api.Secret `json:"tokenId" max:"255" null:"no" doc:"The session, by its token."`
}

func (t *target) Validate() error {
	if t.SessionHandle != "" && t.TokenID != nil {
		return bad("tokenId", "and sessionHandle must not stand together: send one of them")
	}
	if t.SessionHandle != "" {
		return isHandle("sessionHandle", t.SessionHandle)
	}
	return nil
}

// isHandle refuses what is no session's handle.
func isHandle(member, text string) error {
	if _, ok := session.ParseHandle(text); !ok {
		return bad(member, "must be a session's handle, as sessions are answered with")
	}
	return nil
}

// isZero reports whether nothing is selected. An empty token selects a session
// that does not exist, and never the caller's own.
func (t *target) isZero() bool { return t.SessionHandle == "" && t.TokenID == nil }

// living returns the living session that t selects, within the caller's reach.
// Who shows its token and holds the permission shown reaches it too.
func (s *sessions) living(c *dispatch.Call, who *session.Caller, t *target, shown account.Permissions) (session.Live, error) {
	switch {
	case t.SessionHandle != "":
		h, _ := session.ParseHandle(t.SessionHandle)
		if live, ok := s.Sessions.Living(c.Reach, h); ok {
			return live, nil
		}
	case t.TokenID != nil:
		found, ok := s.Sessions.Authenticate(t.TokenID.Reveal(), false)
		if ok && (c.Reach.Covers(found.AccountID) || who.May(shown)) {
			return found.Live, nil
		}
	default:
		return who.Live, nil
	}
	return session.Live{}, notFound("session")
}

// gone is the answer for a session that ended while it was looked at.
func (s *sessions) gone(who *session.Caller, h api.ID) error {
	if h == who.Handle {
		return dispatch.InvalidToken()
	}
	return notFound("session")
}
