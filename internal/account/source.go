package account

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/network"
	"sessiond/store"
)

// The networks that an account has logged in from stand beside its record, not
// in it: its revision is a condition of every new session.
const (
	sourcePrefix  = "source/"
	sourceVersion = 1

	familiarDays = 30 // a network is familiar for so long after a log-in
	maxSources   = 16 // of one account; the one not seen for longest makes room
)

// source is a network that an account has logged in from.
type source struct {
	network netip.Addr // see network.Of
	day     int64      // of the last log-in, days since 1970
}

func (s source) isFamiliar(today int64) bool {
	age := today - s.day
	return age <= familiarDays && age >= -1 // a clock may be set back over midnight, not for months
}

// SourceKey returns the key of what is known about where the account logs in
// from. Whoever drops the account deletes it; if it is left behind, an account
// of the same name does not inherit it.
func (a *Account) SourceKey() string { return sourceKey(a.Realm, a.Canonical) }

func sourceKey(realm, canonical string) string { return sourcePrefix + realm + ":" + canonical }

// Remember returns what the commit of a log-in with a password writes besides:
// that its network is familiar to the account from now on. Mostly that is
// nothing, as it is written once a day. Where it cannot be found out, it is
// nothing too: no log-in fails over it.
func (d *Directory) Remember(ctx context.Context, a *Account, from netip.Addr) []store.Put {
	home := network.Of(from)
	if !home.IsValid() {
		return nil
	}
	networks, err := d.sources(ctx, a.SourceKey(), a.ID)
	if err != nil {
		return nil
	}
	today := dayOf(clock.Sure(d.clock))
	if slices.Contains(networks, source{home, today}) {
		return nil
	}
	networks = slices.DeleteFunc(networks, func(s source) bool { return s.network == home || !s.isFamiliar(today) })
	networks = append([]source{{home, today}}, networks[:min(len(networks), maxSources-1)]...)
	return []store.Put{{Key: a.SourceKey(), Value: encodeSources(a.ID, networks)}}
}

// sources returns where an account has logged in from, the latest first; the zero ID, of which
// there is no account, from nowhere. What cannot be read is replaced by the next
// log-in.
func (d *Directory) sources(ctx context.Context, key string, account api.ID) ([]source, error) {
	item, err := d.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("account: read where it logs in from: %w", err)
	}
	of, networks := decodeSources(item.Value)
	if of != account {
		return nil, nil
	}
	return networks, nil
}

func isFamiliar(networks []source, home netip.Addr, today int64) bool {
	return slices.ContainsFunc(networks, func(s source) bool { return s.network == home && s.isFamiliar(today) })
}

func dayOf(at time.Time) int64 { return at.Unix() / (24 * 60 * 60) }

// encodeSources writes a byte of format version, the account, and for each
// network the day and the address.
func encodeSources(account api.ID, networks []source) []byte {
	b := append([]byte{sourceVersion}, account[:]...)
	for _, s := range networks {
		address := s.network.AsSlice()
		b = binary.BigEndian.AppendUint32(b, uint32(s.day))   //nolint:gosec // days
		b = append(append(b, byte(len(address))), address...) //nolint:gosec // 0, 4 or 16
	}
	return b
}

// decodeSources reads as far as it can.
func decodeSources(value []byte) (account api.ID, networks []source) {
	if len(value) < 1+len(account) || value[0] != sourceVersion {
		return api.ID{}, nil
	}
	account = api.ID(value[1:])
	for b := value[1+len(account):]; len(b) >= 5; {
		day, n := binary.BigEndian.Uint32(b), int(b[4])
		if b = b[5:]; len(b) < n {
			break
		}
		if address, ok := netip.AddrFromSlice(b[:n]); ok {
			networks = append(networks, source{address, int64(day)})
		}
		b = b[n:]
	}
	return account, networks
}
