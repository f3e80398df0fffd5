package account

import (
	"errors"
	"fmt"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// formatVersion is the first byte of a record.
const formatVersion = 1

// record is the stored form of an Account, and the only one that shows the
// password's hash.
type record struct {
	ID              string    `json:"id"`
	Realm           string    `json:"realm"`
	Username        string    `json:"username"`
	Canonical       string    `json:"canonical"`
	Description     string    `json:"description,omitzero"`
	Roles           []string  `json:"roles,omitzero"`
	PasswordHash    string    `json:"passwordHash,omitzero"`
	PasswordChanged time.Time `json:"passwordChanged,omitzero"`
	Created         time.Time `json:"created"`
	Disabled        bool      `json:"disabled,omitzero"`
	EpochTemporary  uint64    `json:"epochTemporary,omitzero"`
	EpochAll        uint64    `json:"epochAll,omitzero"`
	EpochAt         time.Time `json:"epochAt,omitzero"`
	EpochReason     string    `json:"epochReason,omitzero"`
	EpochBy         string    `json:"epochBy,omitzero"`
}

func encode(a *Account) ([]byte, error) {
	text, err := wire.Marshal(record{
		ID: a.ID.String(), Realm: a.Realm, Username: a.Username, Canonical: a.Canonical,
		Description: a.Description, Roles: a.Roles,
		PasswordHash: a.PasswordHash.Reveal(), PasswordChanged: a.PasswordChanged,
		Created: a.Created, Disabled: a.Disabled,
		EpochTemporary: a.Epoch.Temporary, EpochAll: a.Epoch.All,
		EpochAt: a.Epoch.Why.At, EpochReason: a.Epoch.Why.Reason, EpochBy: a.Epoch.Why.By,
	})
	if err != nil {
		return nil, err
	}
	return append([]byte{formatVersion}, text...), nil
}

func decode(value []byte) (*Account, error) {
	if len(value) == 0 {
		return nil, errors.New("it is empty")
	}
	if value[0] != formatVersion {
		return nil, fmt.Errorf("its format version is %d, this program knows %d", value[0], formatVersion)
	}
	var r record
	if err := wire.Unmarshal(value[1:], &r); err != nil {
		return nil, err
	}
	id, err := api.ParseID(r.ID)
	if err != nil {
		return nil, err
	}
	return &Account{
		ID: id, Realm: r.Realm, Username: r.Username, Canonical: r.Canonical,
		Description: r.Description, Roles: r.Roles,
		PasswordHash: api.NewSecret(r.PasswordHash), PasswordChanged: r.PasswordChanged,
		Created: r.Created, Disabled: r.Disabled,
		Epoch: Epoch{Temporary: r.EpochTemporary, All: r.EpochAll, Why: Why{At: r.EpochAt, Reason: r.EpochReason, By: r.EpochBy}},
	}, nil
}
