package session

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
)

// Field numbers of the stored forms, in the encoding of Protocol Buffers.
// They are append-only. A field that this program does not know was written by a
// newer one, and is refused: rewriting the record would lose it.
const (
	fPrefix protowire.Number = 1 + iota
	fSecret
	fAccountID
	fRealm
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
	fFrozen
	fSighting
	fRepeat
	fTolerance
	fLastUse
	fNoticed
)

const (
	flagPermanent = 1 << iota
	flagRememberMe
)

// encode returns the stored form, without the handle: that is in the key.
func (r *Record) encode() []byte {
	e := encoder(make([]byte, 0, 384))
	e.text(fPrefix, r.Prefix)
	for i := range r.Secrets {
		e.nested(fSecret, r.Secrets[i].encode())
	}
	e.bytes(fAccountID, r.AccountID[:])
	e.text(fRealm, r.Realm)
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
	if r.Frozen != nil {
		e.nested(fFrozen, r.Frozen.encode())
	}
	for i := range r.Sightings {
		e.nested(fSighting, r.Sightings[i].encode())
	}
	if r.Repeat != (hash{}) {
		e.bytes(fRepeat, r.Repeat[:])
	}
	e.signed(fTolerance, r.Tolerance)
	if r.Last.At != 0 {
		e.nested(fLastUse, r.Last.encode())
	}
	e.signed(fNoticed, r.Noticed)
	return e
}

// decodeRecord reads a stored form.
func decodeRecord(handle api.ID, data []byte) (*Record, error) {
	return new(reader).record(handle, data)
}

// A reader reads many records, nearly all of which have the same settings.
type reader struct {
	form     []byte // stored form of the settings read last
	settings config.Settings
	last     Record // that again has read
}

func (rd *reader) record(handle api.ID, data []byte) (*Record, error) {
	r := &Record{}
	if err := rd.into(r, handle, data); err != nil {
		return nil, err
	}
	return r, nil
}

// again reads a record that lasts until the next call. Texts that are those of the
// one before are shared with it.
func (rd *reader) again(handle api.ID, data []byte) (*Record, error) {
	err := rd.into(&rd.last, handle, data)
	return &rd.last, err
}

// again returns the text of a field: the one before it, if that is the same.
func again(before string, field []byte) string {
	if before == string(field) {
		return before
	}
	return string(field)
}

// into reads a record into r, of which memory is used again.
func (rd *reader) into(r *Record, handle api.ID, data []byte) error {
	before := *r
	*r = Record{Handle: handle, Secrets: before.Secrets[:0]}
	var property string
	hasSettings := false
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
			r.Realm = again(before.Realm, b)
		case fUsername:
			r.Username = again(before.Username, b)
		case fFlags:
			r.Permanent, r.RememberMe = n&flagPermanent != 0, n&flagRememberMe != 0
		case fDescription:
			r.Description = again(before.Description, b)
		case fSettings:
			if rd.form == nil || !bytes.Equal(b, rd.form) {
				rd.settings, err = decodeSettings(b)
				rd.form = bytes.Clone(b)
			}
			r.Settings, hasSettings = rd.settings, true
		case fIdle:
			r.IdleSeconds = signed(n)
		case fTolerance:
			r.Tolerance = signed(n)
			if r.Tolerance < 0 || r.Tolerance > maxTolerance {
				err = ErrRecord
			}
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
			r.UserAgent = again(before.UserAgent, b)
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
		case fFrozen:
			r.Frozen, err = decodeFrozen(b)
		case fSighting:
			var s Sighting
			s, err = decodeSighting(b)
			r.Sightings = append(r.Sightings, s)
		case fLastUse:
			r.Last, err = decodeSighting(b)
		case fNoticed:
			r.Noticed = signed(n)
		case fRepeat:
			if len(b) != len(r.Repeat) {
				err = ErrRecord
			}
			copy(r.Repeat[:], b)
		default:
			err = unknown(f)
		}
		return err
	})
	if err == nil && (len(r.Secrets) == 0 || r.AccountID.IsZero() || r.Realm == "") {
		err = ErrRecord
	}
	if err != nil {
		return fmt.Errorf("session %s: %w", handle, err)
	}
	if !hasSettings {
		rd.form = nil // it is of another record
	}
	return nil
}

const (
	ffRole protowire.Number = 1 + iota
	ffRealmRole
	ffPermissions
	ffCeiling
)

func (f *Frozen) encode() []byte {
	e := encoder(make([]byte, 0, 64))
	for _, name := range f.Roles {
		e.text(ffRole, name)
	}
	for _, name := range f.RealmRoles {
		e.text(ffRealmRole, name)
	}
	e.number(ffPermissions, uint64(f.Permissions))
	if f.Ceiling {
		e.number(ffCeiling, 1)
	}
	return e
}

func decodeFrozen(data []byte) (*Frozen, error) {
	f := &Frozen{Roles: []string{}, RealmRoles: []string{}}
	err := fields(data, func(n protowire.Number, number uint64, b []byte) error {
		switch n {
		case ffRole:
			f.Roles = append(f.Roles, string(b))
		case ffRealmRole:
			f.RealmRoles = append(f.RealmRoles, string(b))
		case ffPermissions:
			f.Permissions = account.Permissions(number) //nolint:gosec // bits that this program stored
		case ffCeiling:
			f.Ceiling = number != 0
		default:
			return unknown(n)
		}
		return nil
	})
	return f, err
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
		default:
			return unknown(f)
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
	feLastUse
)

func (end *End) encode() []byte {
	e := encoder(make([]byte, 0, 64))
	e.number(feStatus, uint64(end.Status))
	e.signed(feAt, end.At)
	e.text(feReason, end.Reason)
	e.text(feBy, end.By)
	e.signed(feLastUse, end.LastUse)
	return e
}

func decodeEnd(data []byte) (End, error) {
	var end End
	err := fields(data, func(f protowire.Number, n uint64, b []byte) error {
		switch f {
		case feStatus:
			if n > uint64(Replaced) {
				return ErrRecord
			}
			end.Status = Status(n)
		case feAt:
			end.At = signed(n)
		case feReason:
			end.Reason = string(b)
		case feBy:
			end.By = string(b)
		case feLastUse:
			end.LastUse = signed(n)
		default:
			return unknown(f)
		}
		return nil
	})
	if err == nil && end.Status <= Active {
		err = ErrRecord
	}
	return end, err
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
