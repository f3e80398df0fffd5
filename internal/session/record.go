package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/store"
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

// Epochs are the generations that a session was created under: it is dead when
// one of them is no longer in force.
type Epochs struct{ Server, Realm, Account uint64 }

// End is how a session ended.
type End struct {
	Status Status
	At     int64 // Unix seconds
	Reason string
	By     string // the handle of the session that ended it as the wire has it; empty: the server
}

// Record is a session as it is stored. Times are Unix seconds; 0 means never or
// none.
type Record struct {
	Handle    api.ID
	Prefix    string // of its token
	Secrets   []Secret
	AccountID api.ID
	Realm     string
	Canonical string // with Realm, the account's key
	Username  string // as the account shows it

	Permanent     bool
	RememberMe    bool
	Description   string
	Settings      config.Settings
	IdleSeconds   int64
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
	Revision      uint64 // counts alterations, from 1
	Client        api.ID // the browser or device; zero: none
	Properties    map[string]string

	End End // zero while the session lives
}

// MaskedToken returns what may be shown of the session's token.
func (r *Record) MaskedToken() string { return masked(r.Prefix, r.Secrets[0].Mask) }

// AbandonAt returns when the session counts as abandoned if it is not used; 0 is
// never.
func (r *Record) AbandonAt() int64 {
	if r.AbandonAfter == 0 {
		return 0
	}
	return r.LastAccess + r.AbandonAfter
}

// key kinds, each with its slash. What grows with time has time-ordered keys.
const (
	liveKeys  = "sess/"  // handle → Record
	endKeys   = "end/"   // handle → End, until it is folded into a tombstone
	pastKeys  = "past/"  // handle → Record with its End: a tombstone
	touchKeys = "touch/" // time-ordered id → block of last accesses
	epochKeys = "epoch/" // server, or realm:NAME → Generation
)

func liveKey(h api.ID) string { return liveKeys + string(h[:]) }
func endKey(h api.ID) string  { return endKeys + string(h[:]) }
func pastKey(h api.ID) string { return pastKeys + string(h[:]) }

// handleOf returns the handle in a key of the given kind.
func handleOf(kind, key string) (api.ID, bool) {
	if len(key) != len(kind)+len(api.ID{}) || key[:len(kind)] != kind {
		return api.ID{}, false
	}
	return api.ID([]byte(key[len(kind):])), true
}

// Field numbers of the stored forms, in the encoding of Protocol Buffers.
// They are append-only; unknown ones are passed over when reading.
const (
	fPrefix protowire.Number = 1 + iota
	fSecret
	fAccountID
	fRealm
	fCanonical
	fUsername
	fFlags
	fDescription
	fSettings
	fIdle
	fMax
	fAbandon
	fCursor
	fCreated
	fAuthenticated
	fLastAccess
	fMethods
	fAddress
	fUserAgent
	fEpochServer
	fEpochRealm
	fEpochAccount
	fRevision
	fClient
	fPropertyName
	fPropertyValue
	fEnd
)

const (
	flagPermanent = 1 << iota
	flagRememberMe
)

// ErrRecord is wrapped by every error of reading a stored form.
var ErrRecord = errors.New("session: malformed record")

// encode returns the stored form, without the handle: that is in the key.
func (r *Record) encode() []byte {
	e := encoder(make([]byte, 0, 384))
	e.text(fPrefix, r.Prefix)
	for i := range r.Secrets {
		e.nested(fSecret, r.Secrets[i].encode())
	}
	e.bytes(fAccountID, r.AccountID[:])
	e.text(fRealm, r.Realm)
	e.text(fCanonical, r.Canonical)
	e.text(fUsername, r.Username)
	var flags uint64
	if r.Permanent {
		flags |= flagPermanent
	}
	if r.RememberMe {
		flags |= flagRememberMe
	}
	e.number(fFlags, flags)
	e.text(fDescription, r.Description)
	e.bytes(fSettings, encodeSettings(&r.Settings))
	e.signed(fIdle, r.IdleSeconds)
	e.signed(fMax, r.MaxSeconds)
	e.signed(fAbandon, r.AbandonAfter)
	e.signed(fCursor, r.CursorSeconds)
	e.signed(fCreated, r.Created)
	e.signed(fAuthenticated, r.Authenticated)
	e.signed(fLastAccess, r.LastAccess)
	e.number(fMethods, uint64(r.Methods))
	if r.Address.IsValid() {
		e.bytes(fAddress, r.Address.AsSlice())
	}
	e.text(fUserAgent, r.UserAgent)
	e.number(fEpochServer, r.Epochs.Server)
	e.number(fEpochRealm, r.Epochs.Realm)
	e.number(fEpochAccount, r.Epochs.Account)
	e.number(fRevision, r.Revision)
	if !r.Client.IsZero() {
		e.bytes(fClient, r.Client[:])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Properties)) {
		e.nested(fPropertyName, []byte(name))
		e.nested(fPropertyValue, []byte(r.Properties[name]))
	}
	if r.End != (End{}) {
		e.nested(fEnd, r.End.encode())
	}
	return e
}

// decodeRecord reads a stored form.
func decodeRecord(handle api.ID, data []byte) (*Record, error) {
	r := &Record{Handle: handle}
	var property string
	err := fields(data, func(f protowire.Number, n uint64, b []byte) error {
		var err error
		switch f {
		case fPrefix:
			r.Prefix = internPrefix(b)
		case fSecret:
			var s Secret
			s, err = decodeSecret(b)
			r.Secrets = append(r.Secrets, s)
		case fAccountID:
			r.AccountID, err = decodeID(b)
		case fRealm:
			r.Realm = string(b)
		case fCanonical:
			r.Canonical = string(b)
		case fUsername:
			r.Username = string(b)
		case fFlags:
			r.Permanent, r.RememberMe = n&flagPermanent != 0, n&flagRememberMe != 0
		case fDescription:
			r.Description = string(b)
		case fSettings:
			r.Settings, err = decodeSettings(b)
		case fIdle:
			r.IdleSeconds = signed(n)
		case fMax:
			r.MaxSeconds = signed(n)
		case fAbandon:
			r.AbandonAfter = signed(n)
		case fCursor:
			r.CursorSeconds = signed(n)
		case fCreated:
			r.Created = signed(n)
		case fAuthenticated:
			r.Authenticated = signed(n)
		case fLastAccess:
			r.LastAccess = signed(n)
		case fMethods:
			r.Methods = Methods(n) //nolint:gosec // a bit each
		case fAddress:
			var ok bool
			if r.Address, ok = netip.AddrFromSlice(b); !ok {
				err = ErrRecord
			}
		case fUserAgent:
			r.UserAgent = string(b)
		case fEpochServer:
			r.Epochs.Server = n
		case fEpochRealm:
			r.Epochs.Realm = n
		case fEpochAccount:
			r.Epochs.Account = n
		case fRevision:
			r.Revision = n
		case fClient:
			r.Client, err = decodeID(b)
		case fPropertyName:
			property = string(b)
		case fPropertyValue:
			if r.Properties == nil {
				r.Properties = map[string]string{}
			}
			r.Properties[property] = string(b)
		case fEnd:
			r.End, err = decodeEnd(b)
		}
		return err
	})
	if err == nil && (len(r.Secrets) == 0 || r.AccountID.IsZero() || r.Realm == "") {
		err = ErrRecord
	}
	if err != nil {
		return nil, fmt.Errorf("session %s: %w", handle, err)
	}
	return r, nil
}

const (
	fsHash protowire.Number = 1 + iota
	fsMask
	fsValidUntil
	fsLastUsed
	fsNonce
)

func (s *Secret) encode() []byte {
	e := encoder(make([]byte, 0, 64))
	e.bytes(fsHash, s.Hash[:])
	e.text(fsMask, s.Mask)
	e.signed(fsValidUntil, s.ValidUntil)
	e.signed(fsLastUsed, s.LastUsed)
	e.bytes(fsNonce, s.Nonce)
	return e
}

func decodeSecret(data []byte) (Secret, error) {
	var s Secret
	found := false
	err := fields(data, func(f protowire.Number, n uint64, b []byte) error {
		switch f {
		case fsHash:
			if len(b) != len(s.Hash) {
				return ErrRecord
			}
			found = true
			copy(s.Hash[:], b)
		case fsMask:
			s.Mask = string(b)
		case fsValidUntil:
			s.ValidUntil = signed(n)
		case fsLastUsed:
			s.LastUsed = signed(n)
		case fsNonce:
			s.Nonce = slices.Clone(b)
		}
		return nil
	})
	if err == nil && !found {
		err = ErrRecord
	}
	return s, err
}

const (
	feStatus protowire.Number = 1 + iota
	feAt
	feReason
	feBy
)

func (end *End) encode() []byte {
	e := encoder(make([]byte, 0, 64))
	e.number(feStatus, uint64(end.Status))
	e.signed(feAt, end.At)
	e.text(feReason, end.Reason)
	e.text(feBy, end.By)
	return e
}

func decodeEnd(data []byte) (End, error) {
	var end End
	err := fields(data, func(f protowire.Number, n uint64, b []byte) error {
		switch f {
		case feStatus:
			end.Status = Status(n) //nolint:gosec // checked below
		case feAt:
			end.At = signed(n)
		case feReason:
			end.Reason = string(b)
		case feBy:
			end.By = string(b)
		}
		return nil
	})
	if err == nil && (end.Status <= Active || end.Status > Replaced) {
		err = ErrRecord
	}
	return end, err
}

const (
	fgAPI protowire.Number = 1 + iota
	fgDebug
	fgDatabase
	fgOwner
	fgBinary
	fgVariant
	fgBuffer
	fgNumberFormat
	fgDataFormat
	fgBinaryFormat
	fgOmit
	fgInclude
	fgExclude
)

func encodeSettings(s *config.Settings) []byte {
	e := encoder(make([]byte, 0, 64))
	e.text(fgAPI, s.DefaultAPI)
	e.text(fgDebug, s.DefaultDebug)
	e.text(fgDatabase, s.DefaultDatabaseName)
	e.text(fgOwner, s.DefaultOwnerName)
	e.text(fgBinary, s.DefaultBinaryFormat)
	e.text(fgVariant, s.DefaultVariantFormat)
	e.signed(fgBuffer, s.TransformBufferBytes)
	o := &s.DefaultResponseOptions
	e.text(fgNumberFormat, o.NumberFormat)
	e.text(fgDataFormat, o.DataFormat)
	e.text(fgBinaryFormat, o.BinaryFormat)
	for _, list := range []struct {
		field  protowire.Number
		values []string
	}{{fgOmit, o.Omit}, {fgInclude, o.IncludeFields}, {fgExclude, o.ExcludeFields}} {
		for _, v := range list.values {
			e.nested(list.field, []byte(v))
		}
	}
	return e
}

func decodeSettings(data []byte) (config.Settings, error) {
	var s config.Settings
	o := &s.DefaultResponseOptions
	err := fields(data, func(f protowire.Number, n uint64, b []byte) error {
		switch f {
		case fgAPI:
			s.DefaultAPI = string(b)
		case fgDebug:
			s.DefaultDebug = string(b)
		case fgDatabase:
			s.DefaultDatabaseName = string(b)
		case fgOwner:
			s.DefaultOwnerName = string(b)
		case fgBinary:
			s.DefaultBinaryFormat = string(b)
		case fgVariant:
			s.DefaultVariantFormat = string(b)
		case fgBuffer:
			s.TransformBufferBytes = signed(n)
		case fgNumberFormat:
			o.NumberFormat = string(b)
		case fgDataFormat:
			o.DataFormat = string(b)
		case fgBinaryFormat:
			o.BinaryFormat = string(b)
		case fgOmit:
			o.Omit = append(o.Omit, string(b))
		case fgInclude:
			o.IncludeFields = append(o.IncludeFields, string(b))
		case fgExclude:
			o.ExcludeFields = append(o.ExcludeFields, string(b))
		}
		return nil
	})
	return s, err
}

// encoder appends fields; zero values are left out, but for nested ones.
type encoder []byte

func (e *encoder) number(f protowire.Number, n uint64) {
	if n != 0 {
		*e = protowire.AppendVarint(protowire.AppendTag(*e, f, protowire.VarintType), n)
	}
}

func (e *encoder) signed(f protowire.Number, n int64) { e.number(f, protowire.EncodeZigZag(n)) }

func (e *encoder) text(f protowire.Number, s string) {
	if s != "" {
		*e = protowire.AppendString(protowire.AppendTag(*e, f, protowire.BytesType), s)
	}
}

func (e *encoder) bytes(f protowire.Number, b []byte) {
	if len(b) > 0 {
		e.nested(f, b)
	}
}

func (e *encoder) nested(f protowire.Number, b []byte) {
	*e = protowire.AppendBytes(protowire.AppendTag(*e, f, protowire.BytesType), b)
}

func signed(n uint64) int64 { return protowire.DecodeZigZag(n) }

// fields calls do for each field of a message, with its number or its bytes,
// which alias data.
func fields(data []byte, do func(f protowire.Number, n uint64, b []byte) error) error {
	for len(data) > 0 {
		f, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return fmt.Errorf("%w: a tag is cut", ErrRecord)
		}
		data = data[size:]
		var number uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			number, size = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			bytes, size = protowire.ConsumeBytes(data)
		case protowire.Fixed32Type, protowire.Fixed64Type, protowire.StartGroupType, protowire.EndGroupType:
			size = protowire.ConsumeFieldValue(f, kind, data)
		default:
			size = -1
		}
		if size < 0 {
			return fmt.Errorf("%w: field %d is cut", ErrRecord, f)
		}
		if err := do(f, number, bytes); err != nil {
			return fmt.Errorf("field %d: %w", f, err)
		}
		data = data[size:]
	}
	return nil
}

func decodeID(b []byte) (api.ID, error) {
	if len(b) != len(api.ID{}) {
		return api.ID{}, ErrRecord
	}
	return api.ID(b), nil
}

// internPrefix returns the prefix without a copy for the two common ones.
func internPrefix(b []byte) string {
	switch string(b) {
	case prefixSession:
		return prefixSession
	case prefixKey:
		return prefixKey
	}
	return string(b)
}

// A block of last accesses: 20 bytes each, handle and Unix seconds.
const touchLen = 16 + 4

func appendTouch(dst []byte, h api.ID, at uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, h[:]...), at)
}

func readTouches(block []byte, do func(h api.ID, at uint32)) error {
	if len(block)%touchLen != 0 {
		return fmt.Errorf("%w: a block of last accesses is cut", ErrRecord)
	}
	for ; len(block) > 0; block = block[touchLen:] {
		do(api.ID(block[:16]), binary.BigEndian.Uint32(block[16:]))
	}
	return nil
}

// Generation is the present epoch of the server or of a realm: one number for
// temporary sessions, one for all. What ends everything raises both.
type Generation struct {
	Temporary, All uint64
	Rev            store.Rev // of the stored value; 0 while nothing was ever ended
}

// of returns the number that a session of that kind remembers.
func (g Generation) of(permanent bool) uint64 {
	if permanent {
		return g.All
	}
	return g.Temporary
}

func (g Generation) encode() []byte {
	e := encoder(make([]byte, 0, 16))
	e.number(1, g.Temporary)
	e.number(2, g.All)
	return e
}

func decodeGeneration(item store.Item) (Generation, error) {
	g := Generation{Rev: item.Rev}
	err := fields(item.Value, func(f protowire.Number, n uint64, _ []byte) error {
		switch f {
		case 1:
			g.Temporary = n
		case 2:
			g.All = n
		}
		return nil
	})
	return g, err
}

const serverEpoch = epochKeys + "server"

func realmEpoch(realm string) string { return epochKeys + "realm:" + realm }

// bytesOf returns the bytes of s, which must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
