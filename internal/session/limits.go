package session

import (
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
)

// operatorReserve is how many places above each limit are kept for those who may
// revoke sessions, so that an operator can always get in.
const operatorReserve = 5

// Limits bound the living sessions; 0 is no limit.
type Limits struct{ Total, PerAddress, PerAccount int64 }

func limitsOf(d *config.Defaults) Limits {
	return Limits{d.MaxSessions, d.MaxSessionsPerIPAddress, d.MaxSessionsPerUsername}
}

// limiter counts places. A place is taken before the commit that creates a
// session, and given back when the session's end is durable or when it died by
// itself. Everything here is under the table's mu.
type limiter struct {
	total    int64
	reserved map[api.ID]place // of sessions that are being created
}

// A place is what a session takes, or will take, of the limits.
type place struct{ account, address uint32 } // slots; address 0: none

// An addressSlot is a client address with sessions or places.
type addressSlot struct {
	key      addressKey
	count    int32 // places
	sessions int32 // entries linked
	pins     int32
	head     uint32
}

func (t *Table) address(n uint32) *addressSlot { return (*addressSlot)(t.addresses.at(n)) }

func (t *Table) addressNumber(key addressKey) uint32 {
	n := t.byAddress[key]
	if n == 0 {
		n = t.addresses.take()
		t.address(n).key = key
		t.byAddress[key] = n
	}
	return n
}

// unlinkAddress takes an entry off its address's list.
func (t *Table) unlinkAddress(e *entry) {
	a := t.address(e.address)
	if e.adrPrev != 0 {
		t.entry(e.adrPrev).adrNext = e.adrNext
	} else {
		a.head = e.adrNext
	}
	if e.adrNext != 0 {
		t.entry(e.adrNext).adrPrev = e.adrPrev
	}
	a.sessions--
	t.releaseAddress(e.address)
}

// releaseAddress forgets an address without sessions that nobody needs.
func (t *Table) releaseAddress(n uint32) {
	if a := t.address(n); a.sessions == 0 && a.pins == 0 {
		delete(t.byAddress, a.key)
		t.addresses.give(n)
	}
}

// Reserve takes a place for the session that is about to be created under the
// handle, or says which limit is reached. The account, as given, is known to the
// table from then on. Free or the commit of the session settles it.
func (t *Table) Reserve(h api.ID, a *account.Account, address *addressKey, l Limits, now int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	n := t.introduce(a)
	slot := t.account(n)
	p := place{account: n}
	if address != nil {
		p.address = t.addressNumber(*address)
		t.address(p.address).pins++
	}
	extra := int64(0)
	if r := t.realm(slot.realm); (slot.perms|r.perms)&r.mask&account.SessionsRevoke != 0 {
		extra = operatorReserve
	}
	if err := t.room(p.address, l, extra); err != nil {
		t.forget(p)
		return err
	}
	if l.PerAccount > 0 && int64(slot.count) >= l.PerAccount+extra {
		t.purgeStale()
		if int64(slot.count) >= l.PerAccount+extra {
			t.forget(p)
			return full(api.SessionLimitPerUsername, "maxJsonApiSessionsPerUsername", l.PerAccount, int64(slot.count),
				"the account has as many sessions as it may: end one of them and try again")
		}
	}
	slot.count++
	t.limits.total++
	if p.address != 0 {
		t.address(p.address).count++
	}
	t.limits.reserved[h] = p
	return nil
}

// Full says whether the total or the address's limit leaves no place, not even
// the operators'. It is asked before a password is checked.
func (t *Table) Full(address *addressKey, l Limits, now int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	var n uint32
	if address != nil {
		n = t.byAddress[*address]
	}
	return t.room(n, l, operatorReserve)
}

// room checks the limits that do not depend on the account.
func (t *Table) room(address uint32, l Limits, extra int64) error {
	if l.Total > 0 && t.limits.total >= l.Total+extra {
		t.purgeStale()
		if t.limits.total >= l.Total+extra {
			return full(api.SessionLimitReached, "maxJsonApiSessions", l.Total, t.limits.total,
				"the server has as many sessions as it may: try again when some have ended")
		}
	}
	if address != 0 && l.PerAddress > 0 && int64(t.address(address).count) >= l.PerAddress+extra {
		t.purgeStale()
		if int64(t.address(address).count) >= l.PerAddress+extra {
			return full(api.SessionLimitPerIPAddress, "maxJsonApiSessionsPerIpAddress", l.PerAddress, int64(t.address(address).count),
				"the client's address has as many sessions as it may: end one of them and try again")
		}
	}
	return nil
}

func full(code api.Code, limit string, maximum, current int64, message string) error {
	err := api.Errorf(code, "%s", message)
	err.Data = api.ErrorData{Limit: limit, Max: maximum, Current: current}
	return err
}

// Free gives the place of a session back that was not created.
func (t *Table) Free(h api.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.limits.reserved[h]
	if !ok {
		return
	}
	delete(t.limits.reserved, h)
	t.account(p.account).count--
	t.limits.total--
	if p.address != 0 {
		t.address(p.address).count--
	}
	t.forget(p)
}

// forget undoes what knowing a place's account and address took.
func (t *Table) forget(p place) {
	if p.address != 0 {
		t.address(p.address).pins--
		t.releaseAddress(p.address)
	}
	t.unpin(p.account)
}

// settle gives a new entry its place: the one that was reserved for it, or, when
// it comes from elsewhere, a new one.
func (t *Table) settle(e *entry) {
	e.state |= isCounted
	if p, ok := t.limits.reserved[e.handle]; ok {
		delete(t.limits.reserved, e.handle)
		t.forget(p)
		return
	}
	t.account(e.account).count++
	t.limits.total++
	if e.address != 0 {
		t.address(e.address).count++
	}
}

// uncount gives an entry's place back, once.
func (t *Table) uncount(e *entry) {
	if e.state&isCounted == 0 {
		return
	}
	e.state &^= isCounted
	t.account(e.account).count--
	t.limits.total--
	if e.address != 0 {
		t.address(e.address).count--
	}
}

// purgeStale takes the places of all sessions that an epoch of the server or of
// a realm ended. That an epoch rose is only noted when it happens, so that it
// takes one commit's time whatever the count; here the counts become exact.
func (t *Table) purgeStale() {
	if !t.stale {
		return
	}
	t.stale = false
	for _, n := range t.byAccount {
		t.settleDead(t.account(n))
	}
}
