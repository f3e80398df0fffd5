package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/store"
)

// What the tests look at from outside.

func NewToken(prefix string, handle api.ID, random io.Reader) (api.Secret, error) {
	return newToken(prefix, handle, random)
}

func (r *Record) Encode() []byte                               { return r.encode() }
func DecodeRecord(handle api.ID, data []byte) (*Record, error) { return decodeRecord(handle, data) }
func DecodeEnd(data []byte) (End, error)                       { return decodeEnd(data) }
func (end *End) Encode() []byte                                { return end.encode() }
func (g Generation) Encode() []byte                            { return g.encode() }
func DecodeGeneration(item store.Item) (Generation, error)     { return decodeGeneration(item) }
func AppendTouch(dst []byte, h api.ID, at uint32) []byte       { return appendTouch(dst, h, at) }
func ReadTouches(block []byte, do func(api.ID, uint32)) error {
	return readTouches(block, func(u lastUse) { do(u.handle, u.at) })
}

// Repetitions returns how many log-ins can be repeated.
func (k *Keeper) Repetitions() int {
	k.table.repeats.mu.Lock()
	defer k.table.repeats.mu.Unlock()
	return len(k.table.repeats.made)
}

// StoredMembers returns the list of a session's client as it is stored.
func (k *Keeper) StoredMembers(ctx context.Context, h api.ID) ([]api.ID, error) {
	v, err := k.Get(ctx, h)
	if err != nil {
		return nil, err
	}
	c, _, err := k.client(ctx, v.ClientID())
	if err != nil {
		return nil, err
	}
	return c.Members, nil
}

// Tickets are tickets by number.
type Tickets struct{ tickets tickets }

func numbered(n int) hash { return hash(sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))) }

func (t *Tickets) Put(n int, account api.ID, now int64) {
	t.tickets.put(numbered(n), ticket{account: account, until: now + ticketSeconds}, now)
}

func (t *Tickets) Take(n int, now int64) bool {
	_, ok := t.tickets.take(numbered(n), now)
	return ok
}

func (t *Tickets) GiveBack(n int) { t.tickets.giveBack(numbered(n)) }

// Kept returns how much is kept.
func (t *Tickets) Kept() int {
	return max(len(t.tickets.given), len(t.tickets.last), len(t.tickets.order))
}

// Tickets returns how many tickets are known.
func (k *Keeper) Tickets() int {
	k.tickets.mu.Lock()
	defer k.tickets.mu.Unlock()
	return len(k.tickets.given)
}

func LiveKey(h api.ID) string        { return liveKey(h) }
func EndKey(h api.ID) string         { return endKey(h) }
func PastKey(h api.ID) string        { return pastKey(h) }
func RealmEpoch(realm string) string { return realmEpoch(realm) }

const (
	ServerEpoch = serverEpoch
	LiveKeys    = liveKeys
	EndKeys     = endKeys
	PastKeys    = pastKeys
	TouchKeys   = touchKeys
	ClientKeys  = clientKeys
)

func (k *Keeper) Table() *Table                   { return k.table }
func (k *Keeper) Sweep(ctx context.Context) error { return k.sweep(ctx, func() bool { return true }) }

func (k *Keeper) FoldEnds(ctx context.Context) error {
	return k.foldEnds(ctx, func() bool { return true })
}
func (k *Keeper) FlushTouches(ctx context.Context) error       { return k.flushTouches(ctx, false) }
func (k *Keeper) FoldTouches(ctx context.Context) error        { return k.foldTouches(ctx, 1) }
func (k *Keeper) Maintenance(ctx context.Context, n int) error { return k.maintain(ctx, n) }

func (t *Table) Expire(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
}

func (t *Table) Touch(h api.ID, now int64) bool {
	_, _, ok := t.look(proof{handle: h, touch: true, now: now}, nil)
	return ok
}

func (t *Table) Dying(h api.ID, now int64) bool { return t.dying(h, now) }

func (t *Table) IsBuried(h api.ID) bool { return t.isBuried(h) }

func (t *Table) Insert(r *Record, a *account.Account) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.introduce(a)
	t.upsert(r, nil, 0, above{})
	t.unpin(n)
}

// builtin are the roles of a table of its own.
func builtin() *account.Roles { return account.NewRoles() }

// Builtin is builtin for tests outside the package.
func Builtin() *account.Roles { return builtin() }

// ReserveFor is reserve for tests that have the address as text.
func (t *Table) ReserveFor(h api.ID, a *account.Account, address netip.Addr, l Limits, now int64) error {
	_, err := t.reserve(&claim{handle: h, account: a, address: address, limits: l}, now)
	return err
}

// Recount compares each count and list of the table with its entries.
func (t *Table) Recount() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	type tally struct{ sessions, count, pins int32 }
	accounts, addresses := map[uint32]*tally{}, map[uint32]*tally{}
	of := func(m map[uint32]*tally, n uint32) *tally {
		if m[n] == nil {
			m[n] = &tally{}
		}
		return m[n]
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	live, living, keys := 0, int64(0), int64(0)
	for _, p := range t.limits.reserved {
		of(accounts, p.account).count++
		of(accounts, p.account).pins++
		for n := p.address; n != 0; n = t.address(n).wider {
			of(addresses, n).count++
		}
		if p.address != 0 {
			of(addresses, p.address).pins++
		}
	}
	for _, n := range t.byAddress {
		if wider := t.address(n).wider; wider != 0 {
			of(addresses, wider).pins++
		}
	}
	for n := uint32(1); n <= t.entries.next; n++ {
		e := t.entry(n)
		if e.handle.IsZero() {
			continue
		}
		live++
		counted := int32(0)
		if e.state&isCounted != 0 {
			counted = 1
		}
		if e.state&isSwept != 0 && (counted != 0 || e.overlay&isDying == 0) {
			fault("%s is buried, and is counted (%d) or not dead", e.handle, counted)
		}
		s, tag := t.shardOf(&e.handle)
		if got := s.find(tag, &e.handle, t); got != n {
			fault("%s is entry %d, the index says %d", e.handle, n, got)
		}
		of(accounts, e.account).sessions++
		of(accounts, e.account).count += counted
		if e.address != 0 {
			of(addresses, e.address).sessions++
		}
		for n := e.address; n != 0; n = t.address(n).wider {
			of(addresses, n).count += counted
		}
		if t.isAbove(e, t.realm(t.account(e.account).realm).generation) {
			living += int64(counted)
			if e.flags&isPermanent != 0 {
				keys += int64(counted)
			}
		}
	}
	if t.server.living != living || t.server.keys != keys {
		fault("%d living sessions and %d keys are counted, there are %d and %d", t.server.living, t.server.keys, living, keys)
	}
	if live != t.live {
		fault("%d entries are counted, there are %d", t.live, live)
	}
	for id, n := range t.byAccount {
		slot, want := t.account(n), of(accounts, n)
		delete(accounts, n)
		if slot.id != id || (tally{slot.sessions, slot.count, slot.pins}) != *want {
			fault("account %s: %d sessions, %d places, %d pins, want %+v", id, slot.sessions, slot.count, slot.pins, *want)
		}
		if slot.sessions == 0 && slot.pins == 0 {
			fault("account %s is kept for nobody", id)
		}
		if got := t.length(slot.head, func(e *entry) (uint32, uint32, bool) { return e.accPrev, e.accNext, e.account == n }); got != slot.sessions {
			fault("account %s: a list of %d for %d sessions", id, got, slot.sessions)
		}
	}
	for key, n := range t.byAddress {
		a, want := t.address(n), of(addresses, n)
		delete(addresses, n)
		if a.key != key || (tally{a.sessions, a.count, a.pins}) != *want {
			fault("address %v: %d sessions, %d places, %d pins, want %+v", netip.AddrFrom16(key), a.sessions, a.count, a.pins, *want)
		}
		if a.sessions == 0 && a.pins == 0 {
			fault("address %v is kept for nobody", netip.AddrFrom16(key))
		}
		if got := t.length(a.head, func(e *entry) (uint32, uint32, bool) { return e.adrPrev, e.adrNext, e.address == n }); got != a.sessions {
			fault("address %v: a list of %d for %d sessions", netip.AddrFrom16(key), got, a.sessions)
		}
	}
	if len(accounts) > 0 || len(addresses) > 0 {
		fault("%d accounts and %d addresses of entries are not indexed", len(accounts), len(addresses))
	}
	return errors.Join(errs...)
}

// length walks a list and returns its length, or -1 where a link is wrong.
func (t *Table) length(head uint32, links func(*entry) (prev, next uint32, belongs bool)) int32 {
	var length int32
	for last, n := uint32(0), head; n != 0; length++ {
		prev, next, belongs := links(t.entry(n))
		if prev != last || !belongs || int(length) > t.live {
			return -1
		}
		last, n = n, next
	}
	return length
}

// Frozen returns how many sessions keep the roles of their log-in, and how many
// different sets of them there are.
func (t *Table) Frozen() (sessions, sets int) {
	for i := range t.shards {
		sessions += len(t.shards[i].frozen)
	}
	t.frozenSets.each(func(*frozenSet) { sets++ })
	return sessions, sets
}

// Addresses returns how many addresses and networks the table keeps.
func (t *Table) Addresses() int { return len(t.byAddress) }

// ForgetCensus has the next statistics take another census.
func (k *Keeper) ForgetCensus() { k.table.census.last.Store(nil) }

// CountTombstones adds to a commit what keeps the counts of tombstones right.
func (k *Keeper) CountTombstones(tx *store.Tx, change Tally) { k.countTombstones(tx, change) }

const TombstonesKey = tombstonesKey
