package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/wire"
	"sessiond/store"
)

func TestARecordKeepsEverything(t *testing.T) {
	want := full()
	v := reflect.ValueOf(*want)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("the fixture has no %s", v.Type().Field(i).Name)
		}
	}
	put, err := want.Put()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(store.Item{Key: put.Key, Value: put.Value, Rev: want.Rev})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(sameSecret), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	put, err := full().Put()
	if err != nil {
		t.Fatal(err)
	}
	text := string(put.Value[1:])
	for why, item := range map[string]store.Item{
		"nothing":            {Key: put.Key},
		"a newer version":    {Key: put.Key, Value: []byte("\x04" + text)},
		"no version":         {Key: put.Key, Value: []byte("\x00" + text)},
		"an unknown member":  {Key: put.Key, Value: []byte("\x03" + strings.Replace(text, "{", `{"secondFactor":true,`, 1))},
		"a member twice":     {Key: put.Key, Value: []byte("\x03" + strings.Replace(text, "{", `{"disabled":true,`, 1))},
		"something behind":   {Key: put.Key, Value: []byte("\x03" + text + "{}")},
		"a bad identifier":   {Key: put.Key, Value: []byte("\x03" + strings.Replace(text, full().ID.String(), "0", 1))},
		"the key of another": {Key: Key("native", "bob"), Value: put.Value},
	} {
		if _, err := Decode(item); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v", why, err)
		} else if strings.Contains(err.Error(), hashMark) {
			t.Errorf("%s: the error shows the hash", why)
		}
	}
}

// What was written before an epoch kept more than its last rise is read.
func TestRecordsOfBefore(t *testing.T) {
	const form = "\x02" + `{"id":"0000000000000000000007","realm":"native","username":"Alice","canonical":"alice","created":"2026-03-02T08:15:00Z",` +
		`"epochTemporary":7,"epochAll":3,"epochAt":"2026-03-02T08:15:00Z","epochReason":"passwordChanged","epochBy":"sh_0"}`
	a, err := Decode(store.Item{Key: Key("native", "alice"), Value: []byte(form)})
	if err != nil {
		t.Fatal(err)
	}
	last := Why{At: morning, Reason: "passwordChanged", By: "sh_0"}
	if diff := cmp.Diff(Epoch{Temporary: 7, All: 3, Rises: []Rise{{7, 3, last}}}, a.Epoch); diff != "" {
		t.Error(diff)
	}
}

// The record of an account is read and written often.
func TestTheRisesOfAnAccountAreSmall(t *testing.T) {
	a := full()
	a.Epoch = Epoch{}
	size := func() int {
		put, err := a.Put()
		if err != nil {
			t.Fatal(err)
		}
		return len(put.Value)
	}
	none := size()
	why := Why{At: morning.Add(123_456_789), Reason: "passwordChanged", By: "sh_0123456789abcdefghijkl"}
	a.Epoch.Raise(true, why)
	if n := size() - none; n > 170 {
		t.Errorf("one takes %d bytes", n)
	}
	for range 40 {
		a.Epoch.Raise(true, why)
	}
	if n := size() - none; n > 2500 {
		t.Errorf("many take %d bytes", n)
	}
}

// Names, roles and texts of any kind come back as they were stored.
func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		canonical, err := Canonical(rapid.StringMatching(`[a-zA-Z0-9._:/@äÖЖ]{1,20}`).Draw(t, "name"))
		if err != nil {
			t.Skip("no name")
		}
		want := &Account{
			ID: api.NewID(morning, [10]byte{1}), Realm: rapid.StringMatching(`[a-z/.]{1,9}`).Draw(t, "realm"),
			Username: canonical, Canonical: canonical, Description: rapid.String().Draw(t, "description"),
			Roles: rapid.SliceOfN(rapid.SampledFrom([]RoleRef{{Name: "admin"}, {Name: "clerk", ID: api.NewID(morning, [10]byte{2})}}), 1, 2).Draw(t, "roles"), Created: morning,
			Epoch: Epoch{Temporary: rapid.Uint64().Draw(t, "temporary"), All: rapid.Uint64().Draw(t, "all")},
		}
		put, err := want.Put()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(store.Item{Key: put.Key, Value: put.Value})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(sameSecret), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestAnAccountNeverShowsItsHash(t *testing.T) {
	a := full()
	asJSON, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(a), fmt.Sprintf("%v %+v %#v %s %x", a, a, a, a.PasswordHash, a.PasswordHash), fmt.Sprintf("%v %+v %#v", *a, *a, *a), string(asJSON),
	} {
		if strings.Contains(text, hashMark) || strings.Contains(text, fmt.Sprintf("%x", hashMark)) {
			t.Errorf("it shows: %s", text)
		}
	}
	if put, err := a.Put(); err != nil || !strings.Contains(string(put.Value), hashMark) {
		t.Errorf("the record does not hold the hash: %v", err)
	}
}

func full() *Account {
	return &Account{
		ID: api.NewID(morning, [10]byte{1, 2, 3}), Realm: "native", Username: "Alice", Canonical: "alice", Description: "of Wonderland",
		Metadata: Metadata{"colour": wire.Raw(`"blue"`), "size": wire.Raw(`12345678901234567890`)},
		Roles:    []RoleRef{{Name: "auditor"}, {Name: "clerk", ID: api.NewID(morning, [10]byte{4})}}, Created: morning,
		PasswordHash: api.NewSecret(hashMark), PasswordChanged: morning.Add(time.Hour), PasswordSerial: 2, OneTimeUntil: morning.Add(25 * time.Hour),
		Settings: Settings{
			Disabled: true, EnableAt: morning.Add(time.Minute), DisableAt: morning.Add(48 * time.Hour), LockoutAfter: 3, LockoutMinutes: 9,
			PasswordMaxDays: 90, LoginWithinMinutes: 1440, LastLogin: morning.Add(time.Second),
			AllowedAddresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		},
		Dropped: true, Rev: 42,
		Epoch: Epoch{Temporary: 7, All: 3, Inherited: true, Rises: []Rise{
			{5, 2, Why{At: morning.Add(-time.Hour), Reason: "leak", By: "sh_1"}},
			{6, 3, Why{}},
			{7, 3, Why{At: morning.Add(time.Nanosecond), Reason: "passwordChanged", By: "sh_0"}},
		}},
	}
}
