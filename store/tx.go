package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

const (
	maxKindLen = 32
	logKind    = "log"
	metaKind   = "meta"
)

// Kind returns the kind of a key, its part before the first slash. It is ""
// for what is no key: too long, no slash, or a kind that is empty, longer than
// 32 bytes, or of anything but ASCII letters, digits and "-".
func Kind(key string) string {
	if len(key) > MaxKeyLen {
		return ""
	}
	for i := range len(key) {
		switch c := key[i]; {
		case c == '/':
			if i > maxKindLen {
				return ""
			}
			return key[:i]
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return ""
		}
	}
	return ""
}

// Check says what makes tx unfit for a store, wrapped in ErrInvalid. There are
// at most MaxOps conditions, and at most MaxOps changes: puts, deletes and
// entries together. No key is changed twice. The kind "meta" is out of reach;
// of the kind "log" keys may be deleted (that is how old entries are purged)
// but not put. Every backend calls it first.
func (tx Tx) Check() error {
	if len(tx.If) > MaxOps {
		return invalid("%d conditions, the most are %d", len(tx.If), MaxOps)
	}
	if n := len(tx.Put) + len(tx.Delete) + len(tx.Append); n > MaxOps {
		return invalid("%d changes, the most are %d", n, MaxOps)
	}
	for i := range tx.If {
		if k := Kind(tx.If[i].Key); k == "" || k == metaKind {
			return invalid("condition %d: not a key", i)
		}
	}
	for i := range tx.Put {
		switch k := Kind(tx.Put[i].Key); {
		case k == "" || k == metaKind || k == logKind:
			return invalid("put %d: not a key that may be put", i)
		case len(tx.Put[i].Value) > MaxValueLen:
			return invalid("put %d, kind %s: a value of %d bytes, the most are %d", i, k, len(tx.Put[i].Value), MaxValueLen)
		}
	}
	for i, key := range tx.Delete {
		switch k := Kind(key); k {
		case "", metaKind:
			return invalid("delete %d: not a key that may be deleted", i)
		case logKind:
			if _, ok := ParseLogKey(key); !ok {
				return invalid("delete %d: not a key of the log", i)
			}
		}
	}
	for i := range tx.Append {
		if len(tx.Append[i]) > MaxValueLen {
			return invalid("entry %d: %d bytes, the most are %d", i, len(tx.Append[i]), MaxValueLen)
		}
	}
	return tx.checkTwice()
}

// checkTwice compares each with each while they are few, which allocates
// nothing.
func (tx Tx) checkTwice() error {
	const few = 8
	n := len(tx.Put) + len(tx.Delete)
	key := func(i int) string {
		if i < len(tx.Put) {
			return tx.Put[i].Key
		}
		return tx.Delete[i-len(tx.Put)]
	}
	if n <= few {
		for i := range n {
			for j := range i {
				if key(i) == key(j) {
					return invalid("a key of kind %s is changed twice", Kind(key(i)))
				}
			}
		}
		return nil
	}
	seen := make(map[string]struct{}, n)
	for i := range n {
		if _, ok := seen[key(i)]; ok {
			return invalid("a key of kind %s is changed twice", Kind(key(i)))
		}
		seen[key(i)] = struct{}{}
	}
	return nil
}

// Check says what makes r unfit for a store, wrapped in ErrInvalid.
func (r Range) Check() error {
	switch {
	case Kind(r.Prefix) == "":
		return invalid("a range needs a prefix with a kind")
	case r.Limit < 0:
		return invalid("a range with a negative limit")
	case r.After != "" && !strings.HasPrefix(r.After, Kind(r.Prefix)+"/"):
		return invalid("a range that goes on after a key of another kind")
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Update replaces the value at key by what change makes of it, and returns the
// revision of its commit. A nil old means that the key does not exist; a nil
// new deletes it, and where there was nothing, nothing is done and the revision
// is 0. When the key changes meanwhile, change is called anew, as often as it
// takes, so it has no effects of its own. An error of change ends the attempt
// and is returned as it is; those of Commit but ErrConflict likewise.
func Update(ctx context.Context, s Store, key string, change func(old []byte) ([]byte, error)) (Rev, error) {
	for {
		item, err := s.Get(ctx, key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return 0, err
		}
		value, err := change(item.Value)
		if err != nil {
			return 0, err
		}
		tx := Tx{If: []Cond{{Key: key, Rev: item.Rev}}}
		switch {
		case value != nil:
			tx.Put = []Put{{Key: key, Value: value}}
		case item.Rev != 0:
			tx.Delete = []string{key}
		default:
			return 0, nil
		}
		rev, err := s.Commit(ctx, tx)
		if !errors.Is(err, ErrConflict) {
			return rev, err
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrBusy, err)
		}
	}
}
