package session

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/account"
	"sessiond/store"
)

// Generation is the present epoch of the server or of a realm: one number for
// temporary sessions, one for all. What ends everything raises both.
type Generation struct {
	account.Epoch
	Rev store.Rev // of the stored value; 0 while nothing was ever ended
}

// fields of a Generation, and of each of its earlier rises
const (
	fTemporary protowire.Number = 1 + iota
	fAll
	fSecond
	fReason
	fBy
	fNano    // of that second
	fEarlier // the rises before, the oldest first
)

func (g Generation) encode() []byte {
	earlier, why := g.Split()
	e := encoder(make([]byte, 0, 16))
	e.rise(account.Rise{Temporary: g.Temporary, All: g.All, Why: why})
	for i := range earlier {
		var nested encoder
		nested.rise(earlier[i])
		e.nested(fEarlier, nested)
	}
	return e
}

func (e *encoder) rise(r account.Rise) {
	e.number(fTemporary, r.Temporary)
	e.number(fAll, r.All)
	if !r.Why.At.IsZero() {
		e.signed(fSecond, r.Why.At.Unix())
	}
	e.text(fReason, r.Why.Reason)
	e.text(fBy, r.Why.By)
	if !r.Why.At.IsZero() {
		e.number(fNano, uint64(r.Why.At.Nanosecond())) //nolint:gosec // below a second
	}
}

func decodeGeneration(item store.Item) (Generation, error) {
	g := Generation{Rev: item.Rev}
	last, err := decodeRise(item.Value, func(b []byte) error {
		earlier, err := decodeRise(b, nil)
		g.Rises = append(g.Rises, earlier)
		return err
	})
	g.Temporary, g.All = last.Temporary, last.All
	g.Join(last.Why)
	return g, err
}

// decodeRise reads a rise; nested reads those before it, and is nil where there can
// be none.
func decodeRise(value []byte, nested func([]byte) error) (r account.Rise, err error) {
	var second, nano int64
	err = fields(value, func(f protowire.Number, n uint64, b []byte) error {
		switch {
		case f == fTemporary:
			r.Temporary = n
		case f == fAll:
			r.All = n
		case f == fSecond:
			second = signed(n)
		case f == fReason:
			r.Why.Reason = string(b)
		case f == fBy:
			r.Why.By = string(b)
		case f == fNano && n < uint64(time.Second):
			nano = int64(n)
		case f == fEarlier && nested != nil:
			return nested(b)
		default:
			return unknown(f)
		}
		return nil
	})
	if second != 0 {
		r.Why.At = time.Unix(second, nano).UTC()
	}
	return r, err
}

const serverEpoch = epochKeys + "server"

func realmEpoch(realm string) string { return epochKeys + "realm:" + realm }
