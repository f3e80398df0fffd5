// Package event is the log of changes and those who read it. Each change appends
// its event in its own commit; cursors are opaque; what the chain of the log
// proves, store.VerifyLog says. Read answers audits from the store; a Tail keeps
// the last events in memory and hands them to those who wait for the next; a Journal
// keeps, outside the store, what a backup must not bring back.
package event

import (
	"time"
)

// Kind names what happened. Kinds are append-only, like error codes.
type Kind string

// The kinds.
const (
	SessionCreated       Kind = "sessionCreated"
	SessionAltered       Kind = "sessionAltered"
	SessionEnded         Kind = "sessionEnded"    // by somebody; any end is one of this and the two below
	SessionExpired       Kind = "sessionExpired"  // by itself
	SessionEvicted       Kind = "sessionEvicted"  // by a limit
	SessionExpiring      Kind = "sessionExpiring" // ahead of time, of permanent ones
	SessionRotated       Kind = "sessionRotated"
	SessionRemoved       Kind = "sessionRemoved" // off its browser or device, after its end
	AccountCreated       Kind = "accountCreated"
	PasswordChanged      Kind = "passwordChanged"
	AccountSessionsEnded Kind = "accountSessionsEnded" // in one commit; each one's own event follows
	LoginFailed          Kind = "loginFailed"          // aggregated: Count of them since the last
	AccountAltered       Kind = "accountAltered"       // Changed says in what
	AccountDropped       Kind = "accountDropped"
	AllSessionsEnded     Kind = "allSessionsEnded" // of Realm, or of the server, in one commit; each one's own event follows
	RoleCreated          Kind = "roleCreated"
	RoleAltered          Kind = "roleAltered"
	RoleDropped          Kind = "roleDropped"
	ServiceManaged       Kind = "serviceManaged" // Reason is the command
	WebhookReplayed      Kind = "webhookReplayed"
	StoreBackedUp        Kind = "storeBackedUp"  // Service is the backup's name
	StoreCompacted       Kind = "storeCompacted" // by somebody, or by the server itself
	StoreRestored        Kind = "storeRestored"  // a backup took the place of the store: what happened since is undone, but for revocations
	ClockJumped          Kind = "clockJumped"    // the machine's; Reason says by how much
	ClockAccepted        Kind = "clockAccepted"  // the machine's, though it was behind
	StoreSalvaged        Kind = "storeSalvaged"  // what was good of a damaged store took its place: what could not be decided is ended
)

// Event is one committed change. No member ever holds a secret.
type Event struct {
	Time            time.Time `json:"timestamp"`
	Kind            Kind      `json:"kind"`
	SessionHandle   string    `json:"sessionHandle,omitzero"` // the session it is about
	AccountID       string    `json:"accountId,omitzero"`     // the account it is about
	Realm           string    `json:"realm,omitzero"`
	Username        string    `json:"username,omitzero"` // absent for names that do not exist: people type passwords there
	ClientIPAddress string    `json:"clientIpAddress,omitzero"`
	Status          string    `json:"status,omitzero"` // of the session afterwards
	Reason          string    `json:"reason,omitzero"`
	Permanent       bool      `json:"permanentSession,omitzero"`
	Count           int64     `json:"count,omitzero"`
	Role            string    `json:"role,omitzero"`                // the role it is about
	Service         string    `json:"service,omitzero"`             // the service it is about
	Expires         time.Time `json:"expirationTimestamp,omitzero"` // when the session's lifetime ends
	NoticeSeconds   int64     `json:"noticeSeconds,omitzero"`       // how long before that the notice was due
	Changed         []string  `json:"changed,omitzero"`             // names of the members that changed, never their values
	By              Actor     `json:"by,omitzero"`
}

// Actor is who did it: a session, or the server itself when it is zero.
type Actor struct {
	SessionHandle string `json:"sessionHandle,omitzero"`
	Realm         string `json:"realm,omitzero"`
	Username      string `json:"username,omitzero"`
}
