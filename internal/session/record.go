package session

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/config"
)

// Status is where a session stands in its life.
type Status uint8

// The statuses. Their numbers are stored.
const (
	Pending   Status = 1 + iota // a second factor is awaited
	Active                      // in use
	Ended                       // logged out
	Removed                     // logged out, and off its client
	Revoked                     // ended from elsewhere
	Expired                     // idle or past its lifetime; the end's reason says which
	Abandoned                   // expired long ago and never removed
	Replaced                    // evicted by a limit, or superseded on re-authentication
)

var statusNames = [...]string{"", "pending", "active", "ended", "removed", "revoked", "expired", "abandoned", "replaced"}

// String returns the status as the wire has it.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return ""
}

// Methods says how a session was authenticated, a bit each.
type Methods uint8

// The methods. Their bits are stored.
const (
	ByPassword Methods = 1 << iota
	ByIssuer           // by a holder of sessions.issue, for a trusted realm
)

// methodNames are the methods as the wire has them, in the order of their bits.
var methodNames = [...]string{"password", "issued"}

// Names lists the methods as the wire has them.
func (m Methods) Names() []string {
	names := []string{}
	for i, name := range methodNames {
		if m&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// AppendJSON appends the names as a JSON array.
func (m Methods) AppendJSON(dst []byte) []byte {
	dst = append(dst, '[')
	for i, name := range methodNames {
		if m&(1<<i) != 0 {
			if dst[len(dst)-1] != '[' {
				dst = append(dst, ',')
			}
			dst = append(dst, '"')
			dst = append(dst, name...)
			dst = append(dst, '"')
		}
	}
	return append(dst, ']')
}

// Secret is one token of a session: its hash, never itself. The newest comes
// first; those after it are being replaced.
type Secret struct {
	Hash       hash
	Mask       string // the token's last characters
	ValidUntil int64  // Unix seconds; 0: as long as the session
	LastUsed   int64  // Unix seconds; 0: not known
	Nonce      []byte // from which the successor is derived, while that is allowed
}

// maxTolerance is the largest Record.Tolerance.
const maxTolerance = 600

// Epochs are the generations that a session was created under: it is dead when
// one of them is no longer in force.
type Epochs struct{ Server, Realm, Account uint64 }

// End is how a session ended.
type End struct {
	Status Status
	At     int64 // Unix seconds
	Reason string
	By     string // the handle of the session that ended it as the wire has it; empty: the server

	LastUse int64 // Unix seconds; 0 where the record knows it
}

// Record is a session as it is stored. Times are Unix seconds; 0 means never or
// none.
type Record struct {
	Handle    api.ID
	Prefix    string // of its token
	Secrets   []Secret
	AccountID api.ID
	Realm     string
	Username  string // as the account shows it

	Permanent     bool
	RememberMe    bool
	Description   string
	Settings      config.Settings
	IdleSeconds   int64
	Tolerance     int64 // seconds after its idle time in which a use still keeps it alive
	MaxSeconds    int64
	AbandonAfter  int64 // seconds after the last use
	CursorSeconds int64

	Created       int64
	Authenticated int64
	LastAccess    int64
	Methods       Methods
	Address       netip.Addr // of the client; invalid when not known
	UserAgent     string
	Epochs        Epochs
	Frozen        *Frozen // what it holds whatever becomes of its account's roles; nil: what they are
	Revision      uint64  // counts alterations, from 1
	Client        api.ID  // the browser or device, see ClientID; zero: no session was there before it
	Properties    map[string]string
	Sightings     []Sighting // the last addresses that it was used from, the oldest first; none: Address alone
	Last          Sighting   // from where it was used last; zero: as it was created
	Noticed       int64      // notices of its expiry that were due until then were given, in Unix seconds; see expiring.go
	Repeat        hash       // of the key by which its log-in can be repeated; zero: none

	End End // zero while the session lives
}

// MaskedToken returns what may be shown of the session's token.
func (r *Record) MaskedToken() string { return masked(r.Prefix, r.Secrets[0].Mask) }

// ClientID returns the browser or device of the session. It is named after the
// first session that it held.
func (r *Record) ClientID() api.ID {
	if r.Client.IsZero() {
		return r.Handle
	}
	return r.Client
}

// IdleEnd returns when the session dies if it is not used: its tolerance after
// its idle time; 0 is never.
func (r *Record) IdleEnd() int64 {
	if r.IdleSeconds == 0 {
		return 0
	}
	return r.LastAccess + r.IdleSeconds + r.Tolerance
}

// AbandonAt returns when the session counts as abandoned if it is not used; 0 is
// never.
func (r *Record) AbandonAt() int64 {
	if r.AbandonAfter == 0 {
		return 0
	}
	return r.LastAccess + r.AbandonAfter
}

// Equal reports whether two records would be stored as the same.
func (r *Record) Equal(other *Record) bool {
	return r.Handle == other.Handle && bytes.Equal(r.encode(), other.encode())
}

// key kinds, each with its slash. What grows with time has time-ordered keys.
const (
	liveKeys  = "sess/"  // handle → Record
	endKeys   = "end/"   // handle → End, until it is folded into a tombstone
	pastKeys  = "past/"  // handle → Record with its End: a tombstone
	touchKeys = "touch/" // time-ordered id → block of last accesses
	epochKeys = "epoch/" // server, or realm:NAME → Generation
	goneKeys  = "gone/"  // time and id of a dropped account → key of what remains of it
)

func liveKey(h api.ID) string { return liveKeys + string(h[:]) }
func endKey(h api.ID) string  { return endKeys + string(h[:]) }
func pastKey(h api.ID) string { return pastKeys + string(h[:]) }

// goneKey orders dropped accounts by time.
func goneKey(at time.Time, id api.ID) string {
	return goneKeys + string(binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))) + string(id[:]) //nolint:gosec // after 1970
}

// handleOf returns the handle in a key of the given kind.
func handleOf(kind, key string) (api.ID, bool) {
	if len(key) != len(kind)+len(api.ID{}) || key[:len(kind)] != kind {
		return api.ID{}, false
	}
	return api.ID([]byte(key[len(kind):])), true
}
