package session

import (
	"net/netip"
	"slices"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/network"
)

// operatorReserve is how many places above each limit are kept for those who may
// revoke sessions, so that an operator can always get in.
const operatorReserve = 5

// Limits bound the living sessions; 0 is no limit.
type Limits struct {
	Total, PerAddress, PerAccount int64
	On                            config.OnLimit // what becomes of a claim for which one leaves no place; empty: it is refused
}

func limitsOf(d *config.Defaults) Limits {
	return Limits{d.MaxSessions, d.MaxSessionsPerIPAddress, d.MaxSessionsPerUsername, d.OnSessionLimit}
}

// evicts reports whether there is a limit that may have sessions make room.
func (l *Limits) evicts() bool {
	return slices.ContainsFunc([]string{l.On.Total, l.On.PerIPAddress, l.On.PerUsername, l.On.PerClient}, evicts)
}

// limiter counts places. A place is taken before the commit that creates a
// session, and given back when the session's end is durable or when it died by
// itself. Everything here is under the table's mu.
type limiter struct {
	reserved map[api.ID]place // of sessions that are being created
}

// A place is what a session takes, or will take, of the limits.
type place struct{ account, address uint32 } // slots; address 0: none

// An addressSlot is a client address, or a wider network, with sessions or places.
type addressSlot struct {
	key      addressKey
	wider    uint32 // slot of the next wider network that the limit bounds too; 0 none
	count    int32  // places
	sessions int32  // entries linked
	pins     int32
	head     uint32
}

func (t *Table) address(n uint32) *addressSlot { return (*addressSlot)(t.addresses.at(n)) }

// addressKey is what the limit per address counts by: an IPv4 address, or a
// network of IPv6 with its bits, if they are not 64, in the last byte.
type addressKey [16]byte

func keyOfNetwork(p netip.Prefix) addressKey {
	key := addressKey(p.Addr().As16())
	if p.Addr().Is6() && p.Bits() != 64 {
		key[15] = byte(p.Bits()) //nolint:gosec // at most 128
	}
	return key
}

// addressNumber returns the slot of an address.
func (t *Table) addressNumber(a netip.Addr) uint32 {
	var first, narrower uint32
	for p := range network.Bounds(a) {
		key := keyOfNetwork(p)
		n, known := t.byAddress[key]
		if !known {
			n = t.addresses.take()
			t.address(n).key = key
			t.byAddress[key] = n
		}
		if narrower != 0 {
			t.address(narrower).wider = n
			t.address(n).pins++
		} else {
			first = n
		}
		if known {
			break // and so are those above it
		}
		narrower = n
	}
	return first
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

// releaseAddress forgets an address without sessions that nobody needs, and what
// was kept for it.
func (t *Table) releaseAddress(n uint32) {
	for n != 0 {
		a := t.address(n)
		if a.sessions > 0 || a.pins > 0 {
			return
		}
		wider := a.wider
		delete(t.byAddress, a.key)
		t.addresses.give(n)
		if n = wider; n != 0 {
			t.address(n).pins--
		}
	}
}

// A claim asks for a place for a session that is about to be created.
type claim struct {
	handle     api.ID
	account    *account.Account
	address    netip.Addr // invalid: it counts against none
	permanent  bool
	endsOthers bool     // the account's other temporary sessions end in the same commit
	leaving    []api.ID // sessions that end in the same commit
	keep       api.ID   // a session that is not evicted; zero: none
	limits     Limits
}

// reserve takes a place, or says which limit is reached. Where a limit has sessions
// evicted, it returns those that are to end in the commit of the new one: until then
// they count beside it. The account, as given, is known to the table from then on.
// Free or the commit of the session settles it.
func (t *Table) reserve(c *claim, now int64) (evicted []eviction, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	n := t.introduce(c.account)
	p := place{account: n}
	if c.address.IsValid() {
		p.address = t.addressNumber(c.address)
		t.address(p.address).pins++
	}
	if c.endsOthers {
		c.leaving = append(c.leaving, t.temporaryOf(n)...)
	}
	leaving := t.setAside(c.leaving)
	for r := t.fits(n, c); r != nil && err == nil; r = t.fits(n, c) {
		some := t.evictable(n, c, r, now)
		if len(some) == 0 {
			evicted, err = nil, r.refusal
			break
		}
		leaving = append(leaving, t.setAside(some)...)
		for _, h := range some {
			evicted = append(evicted, eviction{h, r.limit})
		}
	}
	t.putBack(leaving)
	if err != nil {
		t.forget(p)
		return nil, err
	}
	t.tally(p, 1)
	t.limits.reserved[c.handle] = p
	return evicted, nil
}

// temporaryOf returns the temporary sessions of the account in a slot.
func (t *Table) temporaryOf(n uint32) (handles []api.ID) {
	for i := t.account(n).head; i != 0; i = t.entry(i).accNext {
		if t.entry(i).flags&isPermanent == 0 {
			handles = append(handles, t.entry(i).handle)
		}
	}
	return handles
}

// isOperator reports whether the account in a slot may revoke the sessions of others:
// limits leave it some places more.
func (t *Table) isOperator(slot *accountSlot) bool {
	return t.liveRights(slot, t.realm(slot.realm)).perms&account.SessionsRevoke != 0
}

// setAside counts sessions no more, until putBack. It returns those that counted.
func (t *Table) setAside(handles []api.ID) (counted []*entry) {
	for _, h := range handles {
		t.withEntry(h, func(e *entry) {
			if e.state&isCounted != 0 {
				counted = append(counted, e)
				t.uncount(e)
			}
		})
	}
	return counted
}

func (t *Table) putBack(counted []*entry) {
	for _, e := range counted {
		e.state |= isCounted
		t.countLiving(e, 1)
		t.tally(e.place(), 1)
	}
}

// reached is a limit that leaves no place.
type reached struct {
	limit   string
	policy  string     // what becomes of the claim
	network addressKey // of the limit per address
	excess  int64      // how many sessions too many there are
	refusal *api.Error
}

// evicts reports whether sessions may have to make room.
func (r *reached) evicts() bool { return evicts(r.policy) }

func evicts(policy string) bool {
	return policy != "" && policy != config.Deny && policy != config.Ask
}

// fits returns the limit that leaves no place for a claim of the account in a slot;
// nil: it fits.
func (t *Table) fits(n uint32, c *claim) *reached {
	slot := t.account(n)
	extra := int64(0)
	if t.isOperator(slot) {
		extra = operatorReserve
	}
	if r := t.room(c.address, c.limits, extra); r != nil {
		return r
	}
	most := c.limits.PerAccount
	if most == 0 || int64(slot.count) < most+extra {
		return nil
	}
	if t.settleDead(slot); int64(slot.count) < most+extra {
		return nil
	}
	return full(api.SessionLimitPerUsername, config.LimitPerUsername, c.limits.On.PerUsername, most, int64(slot.count), extra,
		"the account has as many sessions as it may: end one of them and try again")
}

// Full says whether the total or the address's limit leaves no place, not even
// the operators', and nobody will make room. It is asked before a password is
// checked.
func (t *Table) Full(address netip.Addr, leaving []api.ID, l Limits, now int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	aside := t.setAside(leaving)
	defer t.putBack(aside)
	if r := t.room(address, l, operatorReserve); r != nil && !r.evicts() {
		return r.refusal
	}
	return nil
}

// room checks the limits that do not depend on the account.
func (t *Table) room(address netip.Addr, l Limits, extra int64) *reached {
	if total := t.server.living + int64(len(t.limits.reserved)); l.Total > 0 && total >= l.Total+extra {
		return full(api.SessionLimitReached, config.LimitTotal, l.On.Total, l.Total, total, extra,
			"the server has as many sessions as it may: try again when some have ended")
	}
	if l.PerAddress == 0 {
		return nil
	}
	for p, times := range network.Bounds(address) {
		key, most := keyOfNetwork(p), l.PerAddress*int64(times)
		if t.countAt(key) < most+extra {
			continue
		}
		if t.settleNetwork(key); t.countAt(key) >= most+extra {
			r := full(api.SessionLimitPerIPAddress, config.LimitPerIPAddress, l.On.PerIPAddress, most, t.countAt(key), extra,
				"the client's address, or the network around it, has as many sessions as it may: end one of them and try again")
			r.network = key
			return r
		}
	}
	return nil
}

// countAt returns how many places an address or network takes.
func (t *Table) countAt(key addressKey) int64 {
	if n := t.byAddress[key]; n != 0 {
		return int64(t.address(n).count)
	}
	return 0
}

// full is a limit of which, with the operators' extra places, none is left.
func full(code api.Code, limit, policy string, maximum, current, extra int64, message string) *reached {
	err := api.Errorf(code, "%s", message)
	err.Data = api.ErrorData{Limit: limit, Max: maximum, Current: current}
	return &reached{limit: limit, policy: policy, excess: current - maximum - extra + 1, refusal: err}
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
	t.tally(p, -1)
	t.forget(p)
}

// tally counts a place, or counts it no more.
func (t *Table) tally(p place, by int32) {
	t.account(p.account).count += by
	for n := p.address; n != 0; n = t.address(n).wider {
		t.address(n).count += by
	}
}

func (e *entry) place() place { return place{e.account, e.address} }

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
	t.countLiving(e, 1)
	if p, ok := t.limits.reserved[e.handle]; ok {
		delete(t.limits.reserved, e.handle)
		t.forget(p)
		return
	}
	t.tally(e.place(), 1)
}

// uncount gives an entry's place back, once.
func (t *Table) uncount(e *entry) {
	if e.state&isCounted == 0 {
		return
	}
	e.state &^= isCounted
	t.countLiving(e, -1)
	t.tally(e.place(), -1)
}
