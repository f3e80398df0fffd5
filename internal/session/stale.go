package session

import (
	"time"

	"sessiond/internal/account"
)

// An epoch of the server or of a realm ends its sessions in one commit, however
// many there are. So nothing here looks at each of them then: how many live is kept
// by realm and corrected at once; their places in the limits of accounts and
// addresses are given back where such a limit is reached, or when their tombstones
// are written, some at a time. Everything here is under the table's mu.

// stale is how far the entries have been looked through since an epoch rose.
type stale struct {
	rose bool
	next uint32 // entry to look at
}

// staleTurn is how many entries are looked at in one go.
const staleTurn = 4096

// isAbove reports whether the epochs above an entry's account are those of its
// creation.
func (t *Table) isAbove(e *entry, r *generation) bool {
	return e.realm == r.of(e.flags) && e.server == t.server.of(e.flags)
}

// countLiving counts an entry among the living of the server and of its realm,
// unless an epoch has taken it out of them already.
func (t *Table) countLiving(e *entry, by int64) {
	r := t.realm(t.account(e.account).realm).generation
	if !t.isAbove(e, r) {
		return
	}
	for _, g := range []*generation{&t.server, r} {
		g.living += by
		if e.flags&isPermanent != 0 {
			g.keys += by
		}
	}
}

// raise puts epochs of the server and of realms in force.
func (t *Table) raise(a above) {
	for _, r := range a.generations {
		temp, all := uint32(r.to.Temporary), uint32(r.to.All) //nolint:gosec // counts mass log-outs
		temporary, permanent := temp != r.of.temp.Load(), all != r.of.all.Load()
		r.of.temp.Store(temp)
		r.of.all.Store(all)
		if !temporary && !permanent {
			continue
		}
		t.stale = stale{rose: true, next: 1}
		if r.of != &t.server {
			t.forsake(r.of, temporary, permanent)
			continue
		}
		for _, in := range *t.realms.Load() {
			t.forsake(in.generation, temporary, permanent)
		}
	}
}

// forsake takes a realm's sessions out of the living: the temporary ones, the
// permanent ones, or both.
func (t *Table) forsake(r *generation, temporary, permanent bool) {
	if temporary {
		t.server.living -= r.living - r.keys
		r.living = r.keys
	}
	if permanent {
		t.server.living -= r.keys
		t.server.keys -= r.keys
		r.living -= r.keys
		r.keys = 0
	}
}

// settleSome takes the places of some of the sessions that an epoch ended.
func (t *Table) settleSome(most uint32) {
	for n := uint32(0); t.stale.rose && n < most; n++ {
		if t.stale.next > t.entries.next {
			t.stale = stale{}
			return
		}
		e := t.entry(t.stale.next)
		t.stale.next++
		if !e.handle.IsZero() && !t.isAbove(e, t.realm(t.account(e.account).realm).generation) {
			t.bury(e)
		}
	}
}

// settleNetwork takes the places of those sessions of an address, or of a network
// around it, that an epoch ended.
func (t *Table) settleNetwork(key addressKey) {
	if !t.stale.rose {
		return
	}
	a := t.address(t.byAddress[key])
	if a.sessions == 0 { // a network around addresses, which has no list
		t.settleSome(t.entries.next + 1)
		return
	}
	for n := a.head; n != 0; {
		e := t.entry(n)
		n = e.adrNext
		if !t.isAbove(e, t.realm(t.account(e.account).realm).generation) {
			t.bury(e)
		}
	}
}

// noteRise notes when an epoch rose; the zero time is none.
func (t *Table) noteRise(at time.Time) {
	if at.After(t.risen) {
		t.risen = at
	}
}

// nextRise returns the moment of a rise that happens now: it is later than those of
// this second that were before it.
func (t *Table) nextRise(now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if next := t.risen.Add(1); next.After(now) && next.Unix() == now.Unix() {
		now = next
	}
	t.noteRise(now)
	return now
}

// isSettled reports whether all that ever died has its tombstone, and the table
// knows an account as it is: then why its epoch rose is needed no longer.
func (t *Table) isSettled(a *account.Account, now int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byAccount[a.ID]
	return t.noneDead(now) && (n == 0 || t.account(n).rev >= uint64(a.Rev))
}

// isSettledIn is isSettled for the epoch of a realm, or with no name of the server.
func (t *Table) isSettledIn(realm string, is *Generation, now int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := &t.server
	if realm != "" {
		g = t.realm(t.realmNumber(realm)).generation
	}
	return t.noneDead(now) && g.temp.Load() == uint32(is.Temporary) && g.all.Load() == uint32(is.All) //nolint:gosec // counts mass log-outs
}

// noneDead reports whether every session that the table holds lives.
func (t *Table) noneDead(now int64) bool {
	t.expire(now)
	return int64(t.live) == t.server.living
}
