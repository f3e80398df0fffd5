package store_test

import (
	"context"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"sessiond/store"
)

// Stored by earlier versions, so it must not change.
func TestBytesOfTheLog(t *testing.T) {
	head := store.Head{}.Next([]byte("one")).Next([]byte("two"))
	for _, test := range []struct{ what, got, want string }{
		{"key", hex.EncodeToString([]byte(store.LogKey(0x0102030405060708))), "6c6f672f0102030405060708"},
		{"empty head", hex.EncodeToString(store.Head{}.Encode()), "01" + strings.Repeat("00", 40)},
		{"head", hex.EncodeToString(head.Encode()), "010000000000000002" + "aeb58687e90d96471d2eea4ce2f5e9e1e458b3fa522e133986e4381b61270912"},
		{"entry", hex.EncodeToString(store.AppendEntry([]byte("x"), [32]byte{1, 2}, []byte("data"))), "780102" + strings.Repeat("00", 30) + "64617461"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, want %s", test.what, test.got, test.want)
		}
	}
}

func FuzzLogKey(f *testing.F) {
	f.Add(uint64(1), uint64(255))
	f.Add(uint64(256), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		if got, ok := store.ParseLogKey(store.LogKey(a)); !ok || got != a {
			t.Errorf("ParseLogKey = %d, %v, want %d", got, ok, a)
		}
		if (store.LogKey(a) < store.LogKey(b)) != (a < b) {
			t.Errorf("keys of %d and %d are out of order", a, b)
		}
	})
}

func FuzzDecodeHead(f *testing.F) {
	f.Add(store.Head{}.Next([]byte("one")).Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		head, err := store.DecodeHead(b)
		if err == nil && string(head.Encode()) != string(b) {
			t.Errorf("%x is read as %x", b, head.Encode())
		}
		if err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("DecodeHead: %v, want ErrCorrupt", err)
		}
	})
}

// aLog is a store that holds nothing but a log.
type aLog struct {
	store.Store
	items []store.Item
}

func (l aLog) List(_ context.Context, r store.Range) ([]store.Item, error) {
	for i := range l.items {
		if l.items[i].Key > r.After {
			return l.items[i:min(len(l.items), i+3)], nil
		}
	}
	return nil, nil
}

func TestVerifyLogNamesTheBreak(t *testing.T) {
	for _, test := range []struct {
		name   string
		tamper func([]store.Item) []store.Item
		reach  uint64 // the last good position
		want   string // of the error
	}{
		{"sound", func(l []store.Item) []store.Item { return l }, 10, ""},
		{"cut off at its end", func(l []store.Item) []store.Item { return l[:7] }, 7, ""},
		{"the first is missing", func(l []store.Item) []store.Item { return l[1:] }, 0, "position 1 is missing"},
		{"one is missing", func(l []store.Item) []store.Item { return append(l[:4], l[5:]...) }, 4, "position 5 is missing"},
		{"data is changed", func(l []store.Item) []store.Item { l[5].Value[33] ^= 1; return l }, 5, "breaks at position 6"},
		{"a hash is changed", func(l []store.Item) []store.Item { l[2].Value[0] ^= 1; return l }, 2, "breaks at position 3"},
		{"two change places", func(l []store.Item) []store.Item {
			l[7].Value, l[8].Value = l[8].Value, l[7].Value
			return l
		}, 7, "breaks at position 8"},
		{"an entry is too short", func(l []store.Item) []store.Item { l[3].Value = l[3].Value[:31]; return l }, 3, "not an entry"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var items []store.Item
			var heads []store.Head
			var head store.Head
			for i := range 10 {
				data := []byte{'d', byte(i), 'x'}
				head = head.Next(data)
				heads = append(heads, head)
				items = append(items, store.Item{Key: store.LogKey(head.Seq), Value: store.AppendEntry(nil, head.Hash, data), Rev: 1})
			}
			got, err := store.VerifyLog(t.Context(), aLog{items: test.tamper(items)}, store.Head{}, nil)
			if got.Seq != test.reach || test.reach > 0 && got != heads[test.reach-1] {
				t.Errorf("reached %d, want %d", got.Seq, test.reach)
			}
			if test.want == "" && err != nil {
				t.Errorf("VerifyLog: %v", err)
			}
			if test.want != "" && (!errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("VerifyLog: %v, want ErrCorrupt: %s", err, test.want)
			}
		})
	}
}

func TestVerifyLogFromAnAnchor(t *testing.T) {
	var items []store.Item
	var anchor, head store.Head
	for i := range 10 {
		head = head.Next([]byte{byte(i)})
		if i == 3 {
			anchor = head
		}
		items = append(items, store.Item{Key: store.LogKey(head.Seq), Value: store.AppendEntry(nil, head.Hash, []byte{byte(i)}), Rev: 1})
	}
	var steps []uint64
	got, err := store.VerifyLog(t.Context(), aLog{items: items[2:]}, anchor, func(n uint64) { steps = append(steps, n) })
	if err != nil || got != head {
		t.Errorf("VerifyLog = %d, %v, want %d", got.Seq, err, head.Seq)
	}
	if len(steps) != 2 || steps[1] != 6 {
		t.Errorf("steps %v, want two that end with 6", steps)
	}
	anchor.Hash[0] ^= 1
	if _, err := store.VerifyLog(t.Context(), aLog{items: items[4:]}, anchor, nil); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("from a false anchor: %v, want ErrCorrupt", err)
	}
}
