package account

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
	"sessiond/store/mem"
)

// What an account has lost since a backup is not given back by it; what it has gained
// is not given by the journal.
func TestRecallAccount(t *testing.T) {
	clerk, boss := RoleRef{Name: "clerk", ID: api.ID{1}}, RoleRef{Name: "boss", ID: api.ID{2}}
	again := RoleRef{Name: "clerk", ID: api.ID{3}} // one of that name was made anew
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	soon, later := noon.Add(time.Hour), noon.Add(2*time.Hour)
	for name, tt := range map[string]struct {
		before func(*Account) // in the backup
		since  func(*Account) // nil: dropped
		lost   []string
		after  func(*Account) bool
	}{
		"nothing":    {nil, func(a *Account) { a.Description = "new" }, nil, func(a *Account) bool { return a.Description == "" }},
		"disabled":   {nil, func(a *Account) { a.Disabled = true; a.Epoch.Raise(true, Why{}) }, []string{"enabled", "sessions"}, func(a *Account) bool { return a.Disabled }},
		"enabled":    {func(a *Account) { a.Disabled = true }, func(a *Account) { a.Disabled = false }, nil, func(a *Account) bool { return a.Disabled }},
		"all ended":  {nil, func(a *Account) { a.Epoch.Raise(true, Why{}) }, []string{"sessions"}, func(a *Account) bool { return a.Epoch.All == 1 }},
		"logged out": {nil, func(a *Account) { a.Epoch.Raise(false, Why{}) }, nil, func(a *Account) bool { return a.Epoch.All == 0 }},
		"from later on": {
			nil, func(a *Account) { a.EnableAt = soon },
			[]string{"enableDatetime", "sessions"},
			func(a *Account) bool { return a.EnableAt.Equal(soon) && a.Epoch.All == 1 },
		},
		"until sooner": {
			func(a *Account) { a.DisableAt = later }, func(a *Account) { a.DisableAt = soon },
			[]string{"disableDatetime"},
			func(a *Account) bool { return a.DisableAt.Equal(soon) },
		},
		"until later":  {func(a *Account) { a.DisableAt = soon }, func(a *Account) { a.DisableAt = later }, nil, func(a *Account) bool { return a.DisableAt.Equal(soon) }},
		"until a time": {nil, func(a *Account) { a.DisableAt = soon }, []string{"disableDatetime"}, func(a *Account) bool { return a.DisableAt.Equal(soon) }},
		"for ever":     {func(a *Account) { a.DisableAt = soon }, func(a *Account) { a.DisableAt = time.Time{} }, nil, func(a *Account) bool { return a.DisableAt.Equal(soon) }},
		"a role": {
			func(a *Account) { a.Roles = []RoleRef{boss, clerk} }, func(a *Account) { a.Roles = []RoleRef{clerk} },
			[]string{"roles"},
			func(a *Account) bool { return slices.Equal(a.Roles, []RoleRef{clerk}) },
		},
		"a role of that name": {
			func(a *Account) { a.Roles = []RoleRef{clerk} }, func(a *Account) { a.Roles = []RoleRef{again} },
			[]string{"roles"},
			func(a *Account) bool { return len(a.Roles) == 0 },
		},
		"a role more": {nil, func(a *Account) { a.Roles = []RoleRef{boss} }, nil, func(a *Account) bool { return len(a.Roles) == 0 }},
		"some addresses": {
			nil, func(a *Account) { a.AllowedAddresses = prefixes("10.0.0.0/8") },
			[]string{"allowedAddresses"},
			func(a *Account) bool { return slices.Equal(a.AllowedAddresses, prefixes("10.0.0.0/8")) },
		},
		"other addresses": {
			func(a *Account) { a.AllowedAddresses = prefixes("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32") },
			func(a *Account) { a.AllowedAddresses = prefixes("10.1.0.0/16", "192.0.0.0/16", "203.0.113.7/32") },
			[]string{"allowedAddresses"},
			func(a *Account) bool {
				return slices.Equal(a.AllowedAddresses, prefixes("10.1.0.0/16", "192.0.2.0/24"))
			},
		},
		"all addresses": {
			func(a *Account) { a.AllowedAddresses = prefixes("10.0.0.0/8") }, func(a *Account) { a.AllowedAddresses = prefixes("192.0.2.0/24") },
			[]string{"enabled", "sessions"},
			func(a *Account) bool { return a.Disabled && len(a.AllowedAddresses) == 1 },
		},
		"more addresses": {
			func(a *Account) { a.AllowedAddresses = prefixes("10.0.0.0/8") }, func(a *Account) { a.AllowedAddresses = nil },
			nil, func(a *Account) bool { return len(a.AllowedAddresses) == 1 },
		},
		"a password": {
			nil, func(a *Account) { a.SetPassword(api.NewSecret("other"), noon, time.Time{}) },
			[]string{"password"},
			func(a *Account) bool {
				return a.PasswordHash.IsZero() && a.PasswordChanged.IsZero() && a.PasswordSerial == 2 && a.Epoch.All == 0
			},
		},
		"everything": {nil, nil, []string{"enabled", "sessions"}, func(a *Account) bool { return a.Disabled && !a.Dropped && a.Epoch.All == 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			now, backup := mem.New(), mem.New()
			a := &Account{ID: api.ID{9}, Realm: "native", Username: "Alice", Canonical: "alice"}
			a.SetPassword(api.NewSecret("a hash"), noon, time.Time{})
			if tt.before != nil {
				tt.before(a)
			}
			putIn(t, backup, a)
			e := event.Event{Kind: event.AccountAltered, AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username}
			changed := a.Clone()
			if tt.since == nil {
				changed.Drop()
				e.Kind = event.AccountDropped
			} else {
				tt.since(changed)
			}
			putIn(t, now, changed)
			left, err := Left(t.Context(), now, &e)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(left, []byte("hash")) || bytes.Contains(left, []byte("other")) {
				t.Errorf("the journal holds the hash of a password: %s", left)
			}
			journal := []event.Revocation{{Event: e, Left: left}}
			done, err := Recall(t.Context(), backup, noon, journal)
			if err != nil {
				t.Fatal(err)
			}
			var want []RecalledAccount
			if tt.lost != nil {
				want = []RecalledAccount{{Realm: "native", Username: "Alice", Lost: tt.lost, Dropped: tt.since == nil}}
			}
			if diff := cmp.Diff(want, done.Accounts); diff != "" {
				t.Error(diff)
			}
			item, err := backup.Get(t.Context(), a.Key())
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(item)
			if err != nil || !tt.after(got) {
				t.Errorf("the account is %+v, %v", got, err)
			}
		})
	}
}

// What the last of many changes left is what counts; other accounts of the name do not.
func TestRecallTheLast(t *testing.T) {
	now, backup := mem.New(), mem.New()
	a := &Account{ID: api.ID{9}, Realm: "native", Username: "alice", Canonical: "alice", Roles: []RoleRef{{Name: "clerk", ID: api.ID{1}}}}
	putIn(t, backup, a)
	var journal []event.Revocation
	note := func(a *Account) {
		putIn(t, now, a)
		e := event.Event{Kind: event.AccountAltered, AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username}
		left, err := Left(t.Context(), now, &e)
		if err != nil {
			t.Fatal(err)
		}
		journal = append(journal, event.Revocation{Event: e, Left: left})
	}
	without := a.Clone()
	without.Roles = nil
	note(without)
	note(a) // it was given back
	other := a.Clone()
	other.ID, other.Disabled = api.ID{8}, true
	note(other)
	done, err := Recall(t.Context(), backup, noon, journal)
	if err != nil || len(done.Accounts) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// A role does not get back what it has lost, and gains nothing.
func TestRecallRole(t *testing.T) {
	for name, tt := range map[string]struct {
		before, since []string // nil: dropped
		want          []string // nil: gone
	}{
		"nothing":     {[]string{"a.*"}, []string{"a.*"}, []string{"a.*"}},
		"one":         {[]string{"a.*", "b.*"}, []string{"b.*"}, []string{"b.*"}},
		"a part":      {[]string{"a.*", "b.*"}, []string{"a.read", "a.write"}, []string{"a.read", "a.write"}},
		"gained more": {[]string{"a.read"}, []string{"a.*", "c"}, []string{"a.read"}},
		"everything":  {[]string{"a.*"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			now, backup := mem.New(), mem.New()
			role := &Role{Name: "clerk", ID: api.ID{1}, Permissions: tt.before}
			putIn(t, backup, role)
			e := event.Event{Kind: event.RoleDropped, Role: "clerk"}
			if tt.since != nil {
				e.Kind, e.Changed = event.RoleAltered, []string{"permissions"}
				role.Permissions = tt.since
				putIn(t, now, role)
			}
			left, err := Left(t.Context(), now, &e)
			if err != nil {
				t.Fatal(err)
			}
			done, err := Recall(t.Context(), backup, noon, []event.Revocation{{Event: e, Left: left}, {Event: event.Event{Kind: event.RoleDropped, Role: "younger"}}})
			if err != nil {
				t.Fatal(err)
			}
			if changed := !slices.Equal(tt.before, tt.want); changed != slices.Equal(done.Roles, []string{"clerk"}) {
				t.Errorf("changed: %v", done.Roles)
			}
			item, err := backup.Get(t.Context(), roleKeys+"clerk")
			if tt.want == nil {
				if err == nil {
					t.Error("the role is there still")
				}
				return
			}
			got, err := decodeRole(item)
			if err != nil || !slices.Equal(got.Permissions, tt.want) {
				t.Errorf("%+v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// A line that cannot be understood is an error, not a gap.
func TestRecallRefuses(t *testing.T) {
	backup := mem.New()
	putIn(t, backup, &Account{ID: api.ID{9}, Realm: "native", Username: "alice", Canonical: "alice"})
	e := event.Event{Kind: event.AccountAltered, AccountID: api.ID{9}.String(), Realm: "native", Username: "alice"}
	_, err := Recall(t.Context(), backup, noon, []event.Revocation{{Event: e, Left: []byte(`{"account":{"enabled":"later"}}`)}})
	if err == nil || !strings.Contains(err.Error(), event.ErrJournal.Error()) {
		t.Errorf("%v", err)
	}
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func putIn(t *testing.T, s store.Store, record any) {
	t.Helper()
	var put store.Put
	var err error
	switch r := record.(type) {
	case *Account:
		put, err = r.Put()
	case *Role:
		put, err = r.put()
	}
	if err == nil {
		_, err = s.Commit(t.Context(), store.Tx{Put: []store.Put{put}})
	}
	if err != nil {
		t.Fatal(err)
	}
}
