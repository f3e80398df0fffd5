package actions

import (
	"errors"
	"net/netip"
	"strconv"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
)

// accountSettings are what an account may be given besides its name, password and
// roles. null and absence leave as it is.
type accountSettings struct {
	AccountDescription *string           `json:"accountDescription" max:"65500" doc:"Free text."`
	Metadata           *account.Metadata `json:"metadata" doc:"What applications keep with it: any JSON values by name, at most 65,500 bytes as JSON."`
	Enabled            *bool             `json:"enabled" doc:"false refuses log-ins and ends all sessions and API keys."`
	EnableDatetime     *moment           `json:"enableDatetime" doc:"The first moment at which it may log in, as an RFC 3339 time or a date (UTC); an empty string for none."`
	DisableDatetime    *moment           `json:"disableDatetime" doc:"The moment from which on it may not log in, and all that it has ends, as an RFC 3339 time or a date (UTC); an empty string for none."`
	LockoutAfter       *int              `json:"lockoutAfterNFailedAttempts" min:"0" max:"2147483647" doc:"So many consecutive failures lock log-ins for lockoutMinutes; 0 leaves it to the built-in back-off, which begins at 5."`
	LockoutMinutes     *int              `json:"lockoutMinutes" min:"0" max:"525600" doc:"How long; 0 is 5 minutes."`
	PasswordMaxDays    *int              `json:"maxDaysBeforePasswordMustChange" min:"0" max:"36500" doc:"Age at which the password has to be changed at log-in; 0 is never."`
	LoginWithinMinutes *int              `json:"maxMinutesBeforeNextLogin" min:"0" max:"35791394" doc:"Without a log-in for so long none is taken any more, until the account is altered; 0 is no matter."`
	AllowedAddresses   *[]string         `json:"allowedAddresses" max:"100" doc:"Addresses and prefixes from which it may log in and use its tokens here; empty for any."`
	MemoryLimit        *int64            `json:"memoryLimit" min:"0" max:"2147483647" doc:"FairCom's; accepted with a warning."`
	MemoryRule         *string           `json:"memoryRule" max:"64" doc:"FairCom's; accepted with a warning."`
}

// moment is a point in time as people write it; the zero one stands for none.
type moment struct{ time.Time }

// UnmarshalText takes an RFC 3339 time, a date, or nothing.
func (m *moment) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, string(text)); err == nil && t.Year() > 0 {
			m.Time = t.UTC()
			return nil
		}
	}
	if len(text) == 0 {
		m.Time = time.Time{}
		return nil
	}
	return errors.New("no time")
}

// maxMetadata is the size of an account's metadata as JSON, in bytes.
const maxMetadata = 65_500

// accountChange is what accountSettings come to, checked.
type accountChange struct {
	*accountSettings

	allowed []netip.Prefix
}

// check refuses what cannot be, before anything is touched.
func (p *accountSettings) check(c *dispatch.Call) (*accountChange, *api.Error) {
	change := &accountChange{accountSettings: p}
	if p.Metadata != nil && account.SizeOf(*p.Metadata) > maxMetadata {
		return nil, bad("metadata", "must have at most %d bytes as JSON", maxMetadata)
	}
	if p.AllowedAddresses != nil {
		for i, text := range *p.AllowedAddresses {
			prefix, ok := parsePrefix(text)
			if !ok {
				return nil, bad("allowedAddresses", "must hold IP addresses, or prefixes such as 10.0.0.0/8").At("/params/allowedAddresses/" + strconv.Itoa(i))
			}
			change.allowed = append(change.allowed, prefix)
		}
	}
	if p.MemoryLimit != nil || p.MemoryRule != nil {
		c.Warn(api.BadParam, "sessions of accounts have no memory of their own here: memoryLimit and memoryRule change nothing")
	}
	return change, nil
}

func parsePrefix(text string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err == nil && !p.Addr().Is4In6()
}

// apply changes what was named and returns the names of what that is.
func (p *accountChange) apply(a *account.Account, now time.Time) (changed []string) {
	note := func(name string, given bool, change func()) {
		if given {
			change()
			changed = append(changed, name)
		}
	}
	note("accountDescription", p.AccountDescription != nil, func() { a.Description = *p.AccountDescription })
	note("metadata", p.Metadata != nil, func() { a.Metadata = *p.Metadata })
	note("enabled", p.Enabled != nil, func() { a.Disabled = !*p.Enabled })
	note("enableDatetime", p.EnableDatetime != nil, func() { a.EnableAt = p.EnableDatetime.Time })
	note("disableDatetime", p.DisableDatetime != nil, func() { a.DisableAt = p.DisableDatetime.Time })
	note("lockoutAfterNFailedAttempts", p.LockoutAfter != nil, func() { a.LockoutAfter = *p.LockoutAfter })
	note("lockoutMinutes", p.LockoutMinutes != nil, func() { a.LockoutMinutes = *p.LockoutMinutes })
	note("maxDaysBeforePasswordMustChange", p.PasswordMaxDays != nil, func() { a.PasswordMaxDays = *p.PasswordMaxDays })
	note("maxMinutesBeforeNextLogin", p.LoginWithinMinutes != nil, func() { a.LoginWithinMinutes = *p.LoginWithinMinutes })
	note("allowedAddresses", p.AllowedAddresses != nil, func() { a.AllowedAddresses = p.allowed })
	if a.LoginWithinMinutes > 0 {
		a.LastLogin = now
	}
	return changed
}

// newPassword is a password that somebody else than its owner sets.
type newPassword struct {
	Password        api.Secret `json:"password,omitzero" max:"1024" doc:"At least 15 characters; not for a trusted realm."`
	OneTimePassword bool       `json:"oneTimePassword,omitzero" doc:"Makes a random password, answers it this once, and lets it be used once within 24 hours: to log in with a newPassword beside it."`
}

// password returns the password that is asked for, and until when it is good once;
// the zero one where none is. member names that of the request which holds one.
func (a *accounts) password(realm *config.Realm, p *newPassword, member string) (password api.Secret, once time.Time, err error) {
	if p.OneTimePassword && p.Password.IsZero() {
		member = "oneTimePassword"
	}
	switch {
	case p.OneTimePassword && !p.Password.IsZero():
		return api.Secret{}, once, bad("oneTimePassword", "and %s must not stand together: send one of them", member)
	case realm.Type == config.Trusted && (p.OneTimePassword || !p.Password.IsZero()):
		return api.Secret{}, once, bad(member, "must be absent: the realm trusts the word of holders of sessiond.sessions.issue")
	case p.OneTimePassword:
		password, err = a.Accounts.OneTimePassword()
		return password, a.Clock.Now().Add(oneTimeHours * time.Hour), err
	}
	return p.Password, once, nil
}

// oneTimeHours is how long a one-time password is good.
const oneTimeHours = 24

type accountView struct {
	Username           string    `json:"username" doc:"The account's name, as it was created."`
	Realm              string    `json:"realm" doc:"Where the account is checked."`
	AccountID          string    `json:"accountId" doc:"Its identifier, which never comes back."`
	AccountDescription string    `json:"accountDescription" doc:"Free text."`
	Roles              []string  `json:"roles" doc:"Roles given to the account."`
	CreatedTimestamp   time.Time `json:"createdTimestamp" doc:"When it was created."`
	LastPasswordChange time.Time `json:"lastPasswordChange,omitzero" doc:"When its password was set; absent: it has none."`
	Enabled            bool      `json:"enabled" doc:"Is it switched on?"`
	Active             bool      `json:"active" doc:"May it have sessions at this moment: enabled, and within its datetimes?"`
}

func (a *accounts) view(of *account.Account) accountView {
	return accountView{
		Username: of.Username, Realm: of.Realm, AccountID: of.ID.String(), AccountDescription: of.Description,
		Roles: account.Names(a.Accounts.Roles().Held(of.Roles)), CreatedTimestamp: of.Created.Truncate(time.Second),
		LastPasswordChange: of.PasswordChanged.Truncate(time.Second), Enabled: !of.Disabled, Active: of.Active(a.Clock.Now()),
	}
}

// accountDetails is an account in full.
type accountDetails struct {
	accountView

	Metadata           account.Metadata `json:"metadata" doc:"What applications keep with it."`
	EnableDatetime     time.Time        `json:"enableDatetime,omitzero" doc:"The first moment at which it may log in."`
	DisableDatetime    time.Time        `json:"disableDatetime,omitzero" doc:"The moment from which on it may not."`
	LockoutAfter       int              `json:"lockoutAfterNFailedAttempts" doc:"So many consecutive failures lock log-ins; 0: the built-in back-off."`
	LockoutMinutes     int              `json:"lockoutMinutes" doc:"For how long; 0 is 5 minutes."`
	PasswordMaxDays    int              `json:"maxDaysBeforePasswordMustChange" doc:"Age at which the password has to be changed; 0 is never."`
	LoginWithinMinutes int              `json:"maxMinutesBeforeNextLogin" doc:"Without a log-in for so long none is taken any more; 0 is no matter."`
	AllowedAddresses   []netip.Prefix   `json:"allowedAddresses" doc:"From where it may be used; empty: from anywhere."`
	PasswordMustChange bool             `json:"passwordMustChange" doc:"Does its next log-in have to set a new password?"`
}

func (a *accounts) details(of *account.Account) accountDetails {
	d := accountDetails{
		accountView: a.view(of), Metadata: of.Metadata, EnableDatetime: of.EnableAt, DisableDatetime: of.DisableAt,
		LockoutAfter: of.LockoutAfter, LockoutMinutes: of.LockoutMinutes, PasswordMaxDays: of.PasswordMaxDays, LoginWithinMinutes: of.LoginWithinMinutes,
		AllowedAddresses: of.AllowedAddresses, PasswordMustChange: !of.PasswordHash.IsZero() && of.MustChange(a.Clock.Now()),
	}
	if d.Metadata == nil {
		d.Metadata = account.Metadata{}
	}
	return d
}

// oneTime shows a password that was made for an account.
type oneTime struct {
	OneTimePassword string    `json:"oneTimePassword,omitzero" doc:"The password that was made: hand it to the account's owner, it is shown only here."`
	GoodUntil       time.Time `json:"oneTimePasswordExpirationTimestamp,omitzero" doc:"Until when it is good."`
}

func showOnce(password api.Secret, until time.Time) oneTime {
	if until.IsZero() {
		return oneTime{}
	}
	return oneTime{OneTimePassword: password.Reveal(), GoodUntil: until.Truncate(time.Second)}
}
