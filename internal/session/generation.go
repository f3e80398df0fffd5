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
	Temporary, All uint64
	Why            account.Why // of the last rise
	Rev            store.Rev   // of the stored value; 0 while nothing was ever ended
}

// of returns the number that a session of that kind remembers.
func (g Generation) of(permanent bool) uint64 {
	if permanent {
		return g.All
	}
	return g.Temporary
}

func (g Generation) encode() []byte {
	e := encoder(make([]byte, 0, 16))
	e.number(1, g.Temporary)
	e.number(2, g.All)
	if !g.Why.At.IsZero() {
		e.signed(3, g.Why.At.Unix())
	}
	e.text(4, g.Why.Reason)
	e.text(5, g.Why.By)
	return e
}

func decodeGeneration(item store.Item) (Generation, error) {
	g := Generation{Rev: item.Rev}
	err := fields(item.Value, func(f protowire.Number, n uint64, b []byte) error {
		switch f {
		case 1:
			g.Temporary = n
		case 2:
			g.All = n
		case 3:
			g.Why.At = time.Unix(signed(n), 0).UTC()
		case 4:
			g.Why.Reason = string(b)
		case 5:
			g.Why.By = string(b)
		default:
			return unknown(f)
		}
		return nil
	})
	return g, err
}

const serverEpoch = epochKeys + "server"

func realmEpoch(realm string) string { return epochKeys + "realm:" + realm }
