package account

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// formatVersion is the first byte of a record; oldestVersion is the earliest that
// is read, whose members are all among those of today.
const (
	formatVersion = 3
	oldestVersion = 1
)

// record is the stored form of an Account, and the only one that shows the
// password's hash.
type record struct {
	ID               string         `json:"id"`
	Realm            string         `json:"realm"`
	Username         string         `json:"username"`
	Canonical        string         `json:"canonical"`
	Description      string         `json:"description,omitzero"`
	Metadata         Metadata       `json:"metadata,omitzero"`
	Roles            []string       `json:"roles,omitzero"`
	PasswordHash     string         `json:"passwordHash,omitzero"`
	PasswordChanged  time.Time      `json:"passwordChanged,omitzero"`
	PasswordSerial   uint64         `json:"passwordSerial,omitzero"`
	OneTimeUntil     time.Time      `json:"oneTimeUntil,omitzero"`
	Created          time.Time      `json:"created"`
	Disabled         bool           `json:"disabled,omitzero"`
	EnableAt         time.Time      `json:"enableAt,omitzero"`
	DisableAt        time.Time      `json:"disableAt,omitzero"`
	LockoutAfter     int            `json:"lockoutAfter,omitzero"`
	LockoutMinutes   int            `json:"lockoutMinutes,omitzero"`
	PasswordMaxDays  int            `json:"passwordMaxDays,omitzero"`
	LoginWithin      int            `json:"loginWithinMinutes,omitzero"`
	LastLogin        time.Time      `json:"lastLogin,omitzero"`
	AllowedAddresses []netip.Prefix `json:"allowedAddresses,omitzero"`
	Dropped          bool           `json:"dropped,omitzero"`
	EpochTemporary   uint64         `json:"epochTemporary,omitzero"`
	EpochAll         uint64         `json:"epochAll,omitzero"`
	EpochAt          time.Time      `json:"epochAt,omitzero"`
	EpochReason      string         `json:"epochReason,omitzero"`
	EpochBy          string         `json:"epochBy,omitzero"`
	EpochEarlier     []earlierRise  `json:"epochEarlier,omitzero"` // before the one of epochAt, the oldest first
	EpochInherited   bool           `json:"epochInherited,omitzero"`
}

// earlierRise is the stored form of a Rise.
type earlierRise struct {
	Temporary uint64    `json:"temporary,omitzero"`
	All       uint64    `json:"all,omitzero"`
	At        time.Time `json:"at,omitzero"`
	Reason    string    `json:"reason,omitzero"`
	By        string    `json:"by,omitzero"`
}

func encode(a *Account) ([]byte, error) {
	r := record{
		ID: a.ID.String(), Realm: a.Realm, Username: a.Username, Canonical: a.Canonical,
		Description: a.Description, Metadata: a.Metadata,
		PasswordHash: a.PasswordHash.Reveal(), PasswordChanged: a.PasswordChanged, PasswordSerial: a.PasswordSerial, OneTimeUntil: a.OneTimeUntil,
		Created: a.Created, Disabled: a.Disabled, EnableAt: a.EnableAt, DisableAt: a.DisableAt,
		LockoutAfter: a.LockoutAfter, LockoutMinutes: a.LockoutMinutes, PasswordMaxDays: a.PasswordMaxDays,
		LoginWithin: a.LoginWithinMinutes, LastLogin: a.LastLogin, AllowedAddresses: a.AllowedAddresses, Dropped: a.Dropped,
		EpochTemporary: a.Epoch.Temporary, EpochAll: a.Epoch.All, EpochInherited: a.Epoch.Inherited,
	}
	earlier, why := a.Epoch.Split()
	r.EpochAt, r.EpochReason, r.EpochBy = why.At, why.Reason, why.By
	for _, rise := range earlier {
		r.EpochEarlier = append(r.EpochEarlier, earlierRise{rise.Temporary, rise.All, rise.Why.At, rise.Why.Reason, rise.Why.By})
	}
	for _, ref := range a.Roles {
		r.Roles = append(r.Roles, ref.String())
	}
	return encodeRecord(r)
}

func decode(value []byte) (*Account, error) {
	var r record
	if err := decodeRecord(value, &r); err != nil {
		return nil, err
	}
	id, err := api.ParseID(r.ID)
	if err != nil {
		return nil, err
	}
	a := &Account{
		ID: id, Realm: r.Realm, Username: r.Username, Canonical: r.Canonical,
		Description: r.Description, Metadata: r.Metadata,
		PasswordHash: api.NewSecret(r.PasswordHash), PasswordChanged: r.PasswordChanged, PasswordSerial: r.PasswordSerial, OneTimeUntil: r.OneTimeUntil,
		Created: r.Created, Dropped: r.Dropped,
		Settings: Settings{
			Disabled: r.Disabled, EnableAt: r.EnableAt, DisableAt: r.DisableAt,
			LockoutAfter: r.LockoutAfter, LockoutMinutes: r.LockoutMinutes, PasswordMaxDays: r.PasswordMaxDays,
			LoginWithinMinutes: r.LoginWithin, LastLogin: r.LastLogin, AllowedAddresses: r.AllowedAddresses,
		},
		Epoch: Epoch{Temporary: r.EpochTemporary, All: r.EpochAll, Inherited: r.EpochInherited},
	}
	for _, rise := range r.EpochEarlier {
		a.Epoch.Rises = append(a.Epoch.Rises, Rise{rise.Temporary, rise.All, Why{At: rise.At, Reason: rise.Reason, By: rise.By}})
	}
	a.Epoch.Join(Why{At: r.EpochAt, Reason: r.EpochReason, By: r.EpochBy})
	for _, text := range r.Roles {
		ref, err := parseRef(text)
		if err != nil {
			return nil, err
		}
		a.Roles = append(a.Roles, ref)
	}
	return a, nil
}

// encodeRecord writes a stored form: the format's version, then JSON.
func encodeRecord(r any) ([]byte, error) {
	text, err := wire.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append([]byte{formatVersion}, text...), nil
}

func decodeRecord(value []byte, into any) error {
	if len(value) == 0 {
		return errors.New("it is empty")
	}
	if value[0] < oldestVersion || value[0] > formatVersion {
		return fmt.Errorf("its format version is %d, this program knows %d to %d", value[0], oldestVersion, formatVersion)
	}
	return wire.Unmarshal(value[1:], into)
}

// String is a reference's stored form: the name, and, but for built-in roles, a
// slash and the identifier.
func (r RoleRef) String() string {
	if r.ID.IsZero() {
		return r.Name
	}
	return r.Name + "/" + r.ID.String()
}

func parseRef(text string) (RoleRef, error) {
	name, id, found := strings.Cut(text, "/")
	r := RoleRef{Name: name}
	var err error
	if found {
		r.ID, err = api.ParseID(id)
	}
	return r, err
}
