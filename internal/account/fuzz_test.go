package account

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sessiond/store"
)

// What can be read of a stored account, role or list of networks is written so
// that it is read the same; all else is damage.
func FuzzRecords(f *testing.F) {
	put, err := full().Put()
	if err != nil {
		f.Fatal(err)
	}
	role, err := (&Role{ID: full().ID, Name: "clerk", Permissions: []string{"orders.*"}}).put()
	if err != nil {
		f.Fatal(err)
	}
	for _, item := range []store.Put{put, role, {Key: put.Key, Value: put.Value[:100]}, {Key: roleKeys}} {
		f.Add(item.Key, item.Value)
	}
	f.Add("", encodeSources(full().ID, []source{{netip.MustParseAddr("192.0.2.0"), 20_000}, {netip.MustParseAddr("2001:db8::"), 1}}))
	same := cmp.Options{cmp.Comparer(sameSecret), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty(), cmp.AllowUnexported(Role{}, source{})}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if a, err := Decode(store.Item{Key: key, Value: value}); err == nil {
			put, err := a.Put()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Decode(store.Item{Key: put.Key, Value: put.Value})
			if diff := cmp.Diff(a, again, same); err != nil || diff != "" {
				t.Errorf("an account (-first +second), %v\n%s", err, diff)
			}
		} else if !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("an account: %v", err)
		}
		if r, err := decodeRole(store.Item{Key: key, Value: value}); err == nil {
			put, err := r.put()
			if err != nil {
				t.Fatal(err)
			}
			again, err := decodeRole(store.Item{Key: put.Key, Value: put.Value})
			if diff := cmp.Diff(r, again, same); err != nil || diff != "" {
				t.Errorf("a role (-first +second), %v\n%s", err, diff)
			}
		} else if !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("a role: %v", err)
		}
		id, networks := decodeSources(value)
		againID, again := decodeSources(encodeSources(id, networks))
		if diff := cmp.Diff(networks, again, same); id != againID || diff != "" {
			t.Errorf("networks (-first +second)\n%s", diff)
		}
	})
}
