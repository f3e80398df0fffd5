package session

import (
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/wire"
	"sessiond/store"
)

// Apply is the table's second door: it takes over what one commit changed. It is
// called in commit order, from one goroutine at a time, and does no I/O. What it
// can't read, it returns: such a session is not there.
func (t *Table) Apply(c store.Change) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate(&c)
	over, first := t.aboveIn(c.Put)
	for i := range c.Put {
		if err := t.put(&c.Put[i], over); err != nil && first == nil {
			first = err
		}
	}
	t.raise(over)
	for _, a := range over.accounts {
		if n := t.byAccount[a.ID]; n != 0 {
			t.learn(n, a)
			t.settleDead(t.account(n))
		}
	}
	for _, key := range c.Delete {
		if h, ok := handleOf(liveKeys, key); ok {
			t.remove(h)
		} else if _, ok := handleOf(endKeys, key); ok {
			t.unfolded--
		}
	}
	return first
}

// above is what a commit put that decides about many sessions at once.
type above struct {
	accounts    []*account.Account
	generations []risen
}

// risen is an epoch as it is from now on.
type risen struct {
	of *generation
	to Generation
}

// aboveIn finds what decides about many sessions among what a commit put. It is
// put in force after the commit's sessions: one that is spared must have the new
// epoch before those of the old are buried.
func (t *Table) aboveIn(put []store.Item) (a above, first error) {
	for i := range put {
		var err error
		switch key := put[i].Key; {
		case strings.HasPrefix(key, account.KeyPrefix):
			var record *account.Account
			if record, err = account.Decode(put[i]); err == nil {
				a.accounts = append(a.accounts, record)
			}
		case strings.HasPrefix(key, epochKeys):
			r := risen{of: &t.server}
			if name, ok := strings.CutPrefix(key, realmEpoch("")); ok {
				r.of = t.realm(t.realmNumber(name)).generation
			}
			if r.to, err = decodeGeneration(put[i]); err == nil {
				a.generations = append(a.generations, r)
			}
		}
		if first == nil {
			first = err
		}
	}
	return a, first
}

// put takes over a stored session, or its end.
func (t *Table) put(item *store.Item, over above) error {
	kind, _, _ := strings.Cut(item.Key, "/")
	switch kind + "/" {
	case liveKeys:
		h, ok := handleOf(liveKeys, item.Key)
		if !ok {
			return ErrRecord
		}
		r, err := t.reader.record(h, item.Value)
		if err != nil {
			return err
		}
		t.upsert(r, t.reader.form, 0, over)
	case endKeys:
		if h, ok := handleOf(endKeys, item.Key); ok {
			t.remove(h)
			t.unfolded++
		}
	default:
		if item.Key == tombstonesKey {
			return t.takeTombstones(item)
		}
	}
	return nil
}

// upsert inserts a session, or renews what the table holds of it; form is what its
// settings are stored as. A session that
// was used later than its record says keeps that. Of it and of what is above it,
// which changed in the same commit, readers see both changes or neither.
func (t *Table) upsert(r *Record, form []byte, touched uint32, over above) {
	s, tag := t.shardOf(&r.Handle)
	s.mu.RLock()
	n := s.find(tag, &r.Handle, t)
	s.mu.RUnlock()
	isNew := n == 0
	var e *entry
	if isNew {
		n = t.entries.take()
		e = t.entry(n)
		e.account = t.slotFor(r)
	} else {
		e = t.entry(n)
	}
	settings := t.settingsOf(&r.Settings, form)
	if !isNew && e.state&isCounted != 0 {
		t.countLiving(e, -1)
	}
	touched = max(touched, uint32(r.LastAccess)) //nolint:gosec // until 2106

	s.mu.Lock()
	late := !isNew && t.expired(e, t.now()) // it was dead before this could lengthen its life
	old := e.settings
	e.handle, e.hash, e.settings = r.Handle, r.Secrets[0].Hash, settings
	e.server, e.realm, e.epoch = uint32(r.Epochs.Server), uint32(r.Epochs.Realm), uint32(r.Epochs.Account) //nolint:gosec // counts mass log-outs
	e.created, e.authentic = uint32(r.Created), uint32(r.Authenticated)                                    //nolint:gosec // until 2106
	e.idle, e.maxAt, e.flags = uint32(r.IdleSeconds), r.wall(), r.flags()                                  //nolint:gosec // bounded when it was set
	if touched > atomic.LoadUint32(&e.touched) {
		atomic.StoreUint32(&e.touched, touched)
	}
	atomic.StoreUint32(&e.flushed, max(touched, atomic.LoadUint32(&e.flushed)))
	if isNew {
		s.insert(tag, n)
	}
	s.keepOld(n, r.Secrets)
	if isNew && r.Frozen != nil {
		s.freeze(n, t.frozenSetOf(r.Frozen))
	}
	if i := slices.IndexFunc(over.accounts, func(a *account.Account) bool { return a.ID == r.AccountID }); i >= 0 {
		t.learn(e.account, over.accounts[i])
	}
	t.raise(over)
	s.mu.Unlock()

	if isNew {
		t.live++
		t.link(n, e, r)
		if r.Repeat != (hash{}) {
			t.repeats.note(repetition{r.AccountID, r.Repeat}, r.Handle, r.Created, t.now())
		}
	} else {
		t.settings.give(old)
		if e.state&isCounted != 0 {
			t.countLiving(e, 1)
		}
	}
	if late {
		t.bury(e)
	}
	t.noteNonces(r)
	t.noteNotice(n, r)
	t.note(n, e)
}

// settingsOf returns the number of a session's settings; form is their stored
// form, if it is known.
func (t *Table) settingsOf(s *config.Settings, form []byte) uint32 {
	if form == nil {
		form = encodeSettings(s)
	}
	return t.settings.put(form, func() *config.Settings {
		c := *s
		return &c
	})
}

// wall is the second at which the lifetime ends; 0 is never.
func (r *Record) wall() uint32 {
	if r.MaxSeconds == 0 {
		return 0
	}
	return uint32(r.Created + r.MaxSeconds) //nolint:gosec // until 2106
}

func (r *Record) flags() uint32 {
	flags := uint32(r.Methods) << methodsShift
	flags |= uint32(r.Tolerance) << toleranceShift //nolint:gosec // bounded by the configuration
	if r.Permanent {
		flags |= isPermanent
	}
	if r.RememberMe {
		flags |= isRememberMe
	}
	if r.Frozen != nil {
		flags |= isFrozen
	}
	if len(r.Secrets) > 1 {
		flags |= isRotated
	}
	return flags
}

// link puts a new entry into the lists and the counts.
func (t *Table) link(n uint32, e *entry, r *Record) {
	slot := t.account(e.account)
	slot.sessions++
	e.accNext = slot.head
	if slot.head != 0 {
		t.entry(slot.head).accPrev = n
	}
	slot.head = n
	if r.Address.IsValid() && !r.Permanent {
		e.address = t.addressNumber(r.Address)
		a := t.address(e.address)
		e.adrNext = a.head
		if a.head != 0 {
			t.entry(a.head).adrPrev = n
		}
		a.head = n
		a.sessions++
	}
	t.settle(e)
}

// remove takes a session off the table: it has ended, durably.
func (t *Table) remove(h api.ID) {
	s, tag := t.shardOf(&h)
	s.mu.Lock()
	n := s.find(tag, &h, t)
	if n == 0 {
		s.mu.Unlock()
		return
	}
	e := t.entry(n)
	s.remove(tag, n)
	s.keepOld(n, nil)
	e.handle = api.ID{}
	if e.flags&isFrozen != 0 {
		t.frozenSets.give(s.frozen[n])
		delete(s.frozen, n)
	}
	s.mu.Unlock()

	t.uncount(e)
	if e.accPrev != 0 {
		t.entry(e.accPrev).accNext = e.accNext
	} else {
		t.account(e.account).head = e.accNext
	}
	if e.accNext != 0 {
		t.entry(e.accNext).accPrev = e.accPrev
	}
	if e.address != 0 {
		t.unlinkAddress(e)
	}
	t.account(e.account).sessions--
	t.release(e.account)
	t.settings.give(e.settings)
	e.queued = 0
	delete(t.notices.queued, n)
	t.live--
	t.entries.give(n)
}

// slotFor returns the slot of a session's account. One that the table was not
// told about lets none of its sessions live.
func (t *Table) slotFor(r *Record) uint32 {
	if n := t.byAccount[r.AccountID]; n != 0 {
		return n
	}
	n := t.accounts.take()
	slot := t.account(n)
	slot.id, slot.gone, slot.realm, slot.roles = r.AccountID, true, t.realmNumber(r.Realm), t.roleSetOf(nil)
	t.byAccount[r.AccountID] = n
	return n
}

// introduce makes the table know an account, until release: whoever creates a
// session for it does so first. Of an account that has sessions here, Apply alone
// learns: it knows which of them a change spares.
func (t *Table) introduce(a *account.Account) uint32 {
	n := t.byAccount[a.ID]
	if n == 0 {
		n = t.accounts.take()
		t.account(n).id, t.account(n).roles = a.ID, t.roleSetOf(nil)
		t.byAccount[a.ID] = n
		t.fill(n, a)
	} else if t.account(n).sessions == 0 {
		t.learn(n, a)
	}
	t.account(n).pins++
	return n
}

// release forgets an account that has no sessions and that nobody needs.
func (t *Table) release(n uint32) {
	slot := t.account(n)
	if slot.sessions > 0 || slot.pins > 0 {
		return
	}
	delete(t.byAccount, slot.id)
	t.texts.give(slot.known)
	t.texts.give(slot.name)
	t.texts.give(slot.fence)
	t.roleSets.give(slot.roles)
	t.census.forget(n)
	t.accounts.give(n)
}

func (t *Table) unpin(n uint32) {
	t.account(n).pins--
	t.release(n)
}

// learn takes over an account's record if it is newer than the one known.
func (t *Table) learn(n uint32, a *account.Account) {
	slot := t.account(n)
	if uint64(a.Rev) > slot.rev || (uint64(a.Rev) == slot.rev && slot.gone) {
		t.fill(n, a)
	}
}

// settleDead takes the places of an account's sessions whose epochs are no longer
// in force; they wait for their tombstones.
func (t *Table) settleDead(slot *accountSlot) {
	r := t.realm(slot.realm)
	for n := slot.head; n != 0; {
		e := t.entry(n)
		n = e.accNext
		if !e.current(slot, r, &t.server) {
			t.bury(e)
		}
	}
}

// bury gives a dead session's place back and queues it for its tombstone. From
// then on nothing revives it.
func (t *Table) bury(e *entry) {
	atomic.OrUint32(&e.overlay, isDying)
	t.uncount(e)
	if e.state&isSwept == 0 {
		e.state |= isSwept
		t.dead = append(t.dead, e.handle)
	}
}

// fill writes what the table keeps of an account.
func (t *Table) fill(n uint32, a *account.Account) {
	known, name, fence := t.texts.put(appendKnown(nil, a)), t.texts.put([]byte(a.Username)), t.texts.put(fenceOf(a))
	roles := t.roleSetOf(a.Roles)
	until := uint32(0)
	if !a.DisableAt.IsZero() {
		until = uint32(max(1, min(a.DisableAt.Unix(), math.MaxUint32)))
	}
	slot := t.account(n)
	if was := slot.until; was != 0 && was != until && int64(was) <= t.now() { // that time has come: it revives nothing to move it
		for e := slot.head; e != 0; e = t.entry(e).accNext {
			t.bury(t.entry(e))
		}
	}
	stripe := t.stripe(n)
	stripe.Lock()
	old := *slot
	slot.known, slot.name, slot.fence, slot.roles = known, name, fence, roles
	slot.rev, slot.realm, slot.gone = uint64(a.Rev), t.realmNumber(a.Realm), a.Disabled || a.Dropped
	slot.temp, slot.all = uint32(a.Epoch.Temporary), uint32(a.Epoch.All) //nolint:gosec // counts mass log-outs
	atomic.StoreUint32(&slot.until, until)
	stripe.Unlock()
	t.texts.give(old.known)
	t.texts.give(old.name)
	t.texts.give(old.fence)
	t.roleSets.give(old.roles)
	if until != old.until {
		for e := slot.head; e != 0; e = t.entry(e).accNext {
			t.note(e, t.entry(e))
		}
	}
}

// fenceOf renders the addresses that an account may be used from.
func fenceOf(a *account.Account) []byte {
	var dst []byte
	for _, p := range a.AllowedAddresses {
		dst = append(p.AppendTo(dst), ' ')
	}
	return dst
}

// appendKnown renders the members of validate's answer that the account gives, but
// for its roles.
func appendKnown(dst []byte, a *account.Account) []byte {
	dst = append(dst, `,"accountId":"`...)
	dst = a.ID.Append(dst)
	dst = append(dst, `","username":`...)
	dst = wire.AppendString(dst, a.Username)
	dst = append(dst, `,"realm":`...)
	return wire.AppendString(dst, a.Realm)
}

func (t *Table) realm(n uint32) *realm { return (*t.realms.Load())[n] }

// realmNumber returns the number of a realm; one that the configuration does not
// name gives no roles, and its accounts hold no permissions of the server's.
func (t *Table) realmNumber(name string) uint32 {
	all := *t.realms.Load()
	if i := slices.IndexFunc(all, func(r *realm) bool { return r.name == name }); i >= 0 {
		return uint32(i) //nolint:gosec // few
	}
	all = append(slices.Clone(all), &realm{name: name, generation: &generation{}, held: t.heldIn(nil)})
	t.realms.Store(&all)
	return uint32(len(all) - 1) //nolint:gosec // few
}

// SetRealms puts the configuration's realms in force, with the roles that they
// give, for running sessions too.
func (t *Table) SetRealms(realms []config.Realm) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range realms {
		t.realmNumber(realms[i].Name)
	}
	all := slices.Clone(*t.realms.Load())
	for i, old := range all {
		r := &realm{name: old.name, generation: old.generation, held: t.heldIn(nil)}
		if at := slices.IndexFunc(realms, func(c config.Realm) bool { return c.Name == old.name }); at >= 0 {
			c := &realms[at]
			r.held = t.heldIn(c.Roles)
			if c.Type == "native" || c.AllowServerRoles {
				r.mask = ^account.Permissions(0)
			}
		}
		all[i] = r
	}
	t.realms.Store(&all)
}
