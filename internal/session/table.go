package session

import (
	"hash/maphash"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/store"
)

// Table is the live table: all that the path of a request needs to know about
// living sessions, in memory. It is a projection of the store with two doors,
// Load and Apply; nothing else writes what it holds of a session.
//
// Beside what is projected stands a small overlay, columns of the same entries
// that are written atomically: the time of the last touch, and the mark of a
// session whose end is under way. Readers see both.
//
// Locks, in the order in which they are taken: mu (lists, counts, expiry, and
// every change), a shard (its index and what validate reads of its entries), an
// account's stripe (what validate reads of the account). Readers of a token
// take no mu. No lock is held over I/O.
type Table struct {
	shards   [256]shard
	stripes  [64]sync.RWMutex
	entries  slab // of entry
	accounts slab // of accountSlot
	texts    texts
	server   generation
	realms   atomic.Pointer[[]*realm]
	settings interner[config.Settings]
	now      func() int64 // Unix seconds

	roles      *account.Roles // fed before the table is
	roleSets   interner[roleSet]
	frozenSets interner[frozenSet]
	accuracy   atomic.Int64 // seconds between two writes of one last access

	touched touchQueue
	stolen  touchQueue // sessions of which stolen tokens were shown
	repeats repetitions

	sightings sightings
	rates     rates
	blocks    atomic.Int64 // of last uses that the store holds

	mu        sync.Mutex
	byAccount map[api.ID]uint32
	byAddress map[addressKey]uint32
	addresses slab // of addressSlot
	limits    limiter
	expiry    expiry
	reader    reader
	dead      []api.ID // waiting for their tombstones
	nonces    []rotated
	notices   notices
	live      int // entries
	stale     stale
	risen     time.Time // the latest moment of a rise
	census    census

	tombstones tombstones
	unfolded   int64 // ends that the store holds beside their records
}

// An entry is one living session, in two cache lines. It holds no pointers.
type entry struct {
	handle    api.ID // zero: free
	hash      hash
	account   uint32 // slot of the account
	server    uint32 // epochs of the session's creation
	realm     uint32
	epoch     uint32
	created   uint32 // Unix seconds, here and below
	authentic uint32
	maxAt     uint32 // the lifetime's wall; 0 none
	idle      uint32 // seconds; 0 none
	settings  uint32 // number in the interner
	flags     uint32 // permanent, rememberMe, frozen, the methods, the tolerance; with the shard's lock

	touched uint32 // overlay, atomic: last use
	overlay uint32 // overlay, atomic: dying, dirty
	flushed uint32 // overlay, atomic: last use as the store has it

	queued  uint32 // with mu, from here on: deadline under which expiry holds it; 0 none
	state   uint32 // counted, swept
	accPrev uint32
	accNext uint32
	adrPrev uint32
	adrNext uint32
	address uint32 // number of the address slot; 0 none
}

const (
	isPermanent uint32 = 1 << iota
	isRememberMe
	isFrozen       // the shard knows what it holds
	isRotated      // the shard knows its old tokens
	methodsShift   = 8
	toleranceShift = 16 // seconds

	isDying uint32 = 1 << 0 // overlay: an end is under way or could not be written
	isDirty uint32 = 1 << 1 // overlay: waits in the touch queue

	isCounted uint32 = 1 << 0 // state: takes a place in the limits
	isSwept   uint32 = 1 << 1 // state: waits for its tombstone
)

// An accountSlot is an account that has living sessions, or one being created.
type accountSlot struct {
	id    api.ID
	rev   uint64
	known text   // the members that validate answers about it but for roles, rendered
	name  text   // user name as shown
	fence text   // addresses that it may be used from, one after the other
	realm uint32 // number
	temp  uint32 // epochs
	all   uint32
	roles uint32 // number of the role set
	until uint32 // atomic: Unix seconds from which on its sessions are dead; 0 none
	gone  bool   // dropped or disabled

	sessions int32 // with mu: entries linked
	count    int32 // with mu: places taken
	pins     int32 // with mu: who needs the slot though it has no sessions
	head     uint32
}

// realm is a realm's part in every decision about its accounts.
type realm struct {
	name       string
	generation *generation
	held       *held               // what the realm gives
	mask       account.Permissions // what its accounts may hold at all
}

// generation is the present epochs of the server or a realm.
type generation struct {
	temp, all atomic.Uint32

	living, keys int64 // with mu: sessions that take a place, and how many of them are permanent
}

func (g *generation) of(flags uint32) uint32 {
	if flags&isPermanent != 0 {
		return g.all.Load()
	}
	return g.temp.Load()
}

func (s *accountSlot) epoch(flags uint32) uint32 {
	if flags&isPermanent != 0 {
		return s.all
	}
	return s.temp
}

// Live is what the table says of one living session.
type Live struct {
	Handle        api.ID
	AccountID     api.ID
	Permanent     bool
	RememberMe    bool
	Methods       Methods
	Permissions   account.Permissions
	Created       int64 // Unix seconds
	Authenticated int64
	LastAccess    int64
	IdleAt        int64 // when its idle time is over, after which it lives for its tolerance; 0 never
	MaxAt         int64 // the lifetime's wall; 0 none
	Settings      *config.Settings
	Fenced        bool      // its account may be used from some addresses only: see Keeper.AllowsFrom
	AccountRev    store.Rev // of the account's record
}

// Use moves the last access, and with it the moment of idling out, to now.
func (l *Live) Use(now int64) {
	if now <= l.LastAccess {
		return
	}
	if l.IdleAt != 0 {
		l.IdleAt += now - l.LastAccess
	}
	l.LastAccess = now
}

// NewTable returns an empty table, which a Keeper gives the time. Of the roles,
// rolesChanged tells it.
func NewTable(roles *account.Roles) *Table {
	t := &Table{roles: roles, now: func() int64 { return 0 }, byAccount: map[api.ID]uint32{}, byAddress: map[addressKey]uint32{}}
	t.entries.init(unsafe.Sizeof(entry{}))
	t.accounts.init(unsafe.Sizeof(accountSlot{}))
	t.addresses.init(unsafe.Sizeof(addressSlot{}))
	t.texts.init()
	memory := &arena{}
	t.entries.arena, t.accounts.arena, t.addresses.arena = memory, memory, memory
	for i := range t.texts.classes {
		t.texts.classes[i].arena = memory
	}
	runtime.AddCleanup(t, (*arena).release, memory)
	t.settings.init()
	t.roleSets.init()
	t.frozenSets.init()
	t.roleSetOf(nil) // number 0, for ever: nobody holds anything unless it is said
	t.repeats.init()
	t.sightings.seed = maphash.MakeSeed()
	t.notices.queued = map[uint32]uint32{}
	t.limits.reserved = map[api.ID]place{}
	t.realms.Store(&[]*realm{})
	t.accuracy.Store(60)
	return t
}

func (t *Table) entry(n uint32) *entry         { return (*entry)(t.entries.at(n)) }
func (t *Table) account(n uint32) *accountSlot { return (*accountSlot)(t.accounts.at(n)) }
func (t *Table) stripe(account uint32) *sync.RWMutex {
	return &t.stripes[account%uint32(len(t.stripes))]
}

// shardOf returns a handle's shard and the tag under which that indexes it.
// Both come from the handle's random bits.
func (t *Table) shardOf(h *api.ID) (*shard, uint32) {
	tag := uint32(h[12])<<24 | uint32(h[13])<<16 | uint32(h[14])<<8 | uint32(h[15])
	return &t.shards[h[11]], tag
}

// A proof selects a session and shows, or not, that the asker holds its token.
type proof struct {
	handle api.ID
	hash   *hash // nil: look by handle
	who    bool  // append what is known of the account
	touch  bool
	ending bool // find it also while its end is under way, or was refused
	now    int64
}

// look returns the living session that p selects. With who, it appends to dst
// the account's members as validate answers them, each with a comma before it.
func (t *Table) look(p proof, dst []byte) (Live, []byte, bool) {
	s, tag := t.shardOf(&p.handle)
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.find(tag, &p.handle, t)
	if n == 0 {
		return Live{}, dst, false
	}
	e := t.entry(n)
	if p.hash != nil && !e.hash.is(p.hash) && !t.takesOld(s, n, e, &p) {
		return Live{}, dst, false
	}
	if atomic.LoadUint32(&e.overlay)&isDying != 0 && !p.ending {
		return Live{}, dst, false
	}
	touched := atomic.LoadUint32(&e.touched)
	if d := t.deadline(e, touched); d != 0 && p.now >= int64(d) {
		return Live{}, dst, false
	}
	stripe := t.stripe(e.account)
	stripe.RLock()
	defer stripe.RUnlock()
	slot := t.account(e.account)
	r := (*t.realms.Load())[slot.realm]
	if !e.current(slot, r, &t.server) {
		return Live{}, dst, false
	}
	if p.touch && p.now > int64(touched) {
		t.touch(e, uint32(p.now)) //nolint:gosec // until 2106
		touched = uint32(p.now)   //nolint:gosec // until 2106
	}
	holds := t.rightsOf(s, n, e, slot, r)
	if p.who {
		dst = append(dst, t.texts.bytes(slot.known)...)
		dst = holds.append(dst)
	}
	live := Live{
		Handle: e.handle, AccountID: slot.id,
		Permanent: e.flags&isPermanent != 0, RememberMe: e.flags&isRememberMe != 0, Methods: Methods(e.flags >> methodsShift), //nolint:gosec // 8 bits
		Permissions: holds.perms, Fenced: slot.fence != text{}, AccountRev: store.Rev(slot.rev),
		Created: int64(e.created), Authenticated: int64(e.authentic), LastAccess: int64(touched), MaxAt: int64(e.maxAt),
		Settings: t.settings.get(e.settings),
	}
	if e.idle != 0 {
		live.IdleAt = int64(touched) + int64(e.idle)
	}
	return live, dst, true
}

// takesOld reports whether an old token is good still. One that is not any more
// ends its session.
func (t *Table) takesOld(s *shard, n uint32, e *entry, p *proof) bool {
	if e.flags&isRotated == 0 {
		return false
	}
	worth := s.old(n, p.hash, p.now)
	if worth == stolenToken && e.flags&isPermanent == 0 && atomic.OrUint32(&e.overlay, isDying)&isDying == 0 {
		t.steal(e.handle)
	}
	return worth == graceToken
}

// deadline returns the second from which on the session is dead by itself; 0 is
// never. It is the one place where that is computed. The tolerance is of the idle
// time alone: nothing moves a wall.
func (t *Table) deadline(e *entry, touched uint32) uint32 {
	d := e.maxAt
	if until := atomic.LoadUint32(&t.account(e.account).until); until != 0 && (d == 0 || until < d) {
		d = until
	}
	if e.idle != 0 {
		if idleEnd := touched + e.idle + e.flags>>toleranceShift; d == 0 || idleEnd < d {
			d = idleEnd
		}
	}
	return d
}

// current reports whether the epochs of the session's creation are in force.
func (e *entry) current(slot *accountSlot, r *realm, server *generation) bool {
	return !slot.gone && e.epoch == slot.epoch(e.flags) && e.realm == r.generation.of(e.flags) && e.server == server.of(e.flags)
}

// dying marks a session whose end is under way: it is dead from now on, whatever
// becomes of the commit. It reports whether there was a session to end: one that
// lives, or whose end could not be written.
func (t *Table) dying(h api.ID, now int64) bool {
	marked := false
	t.withEntry(h, func(e *entry) {
		if marked = !t.expired(e, now) && t.inForce(e); marked {
			atomic.OrUint32(&e.overlay, isDying)
		}
	})
	return marked
}

// inForce is current for a caller who holds the entry's shard.
func (t *Table) inForce(e *entry) bool {
	stripe := t.stripe(e.account)
	stripe.RLock()
	defer stripe.RUnlock()
	slot := t.account(e.account)
	return e.current(slot, (*t.realms.Load())[slot.realm], &t.server)
}

// outdated reports whether an epoch, or its account's time, has ended a session, as far as the table
// knows: it may have for one that the table does not hold.
func (t *Table) outdated(h api.ID, now int64) bool {
	outdated := true
	t.withEntry(h, func(e *entry) {
		until := atomic.LoadUint32(&t.account(e.account).until)
		outdated = !t.inForce(e) || until != 0 && int64(until) <= now
	})
	return outdated
}

// ofAccount returns an account's living sessions, oldest first; with ending, also
// those whose end is under way or was refused.
func (t *Table) ofAccount(id api.ID, ending bool, now int64) []Live {
	var handles []api.ID
	t.mu.Lock()
	if n := t.byAccount[id]; n != 0 {
		for e := t.account(n).head; e != 0; e = t.entry(e).accNext {
			handles = append(handles, t.entry(e).handle)
		}
	}
	t.mu.Unlock()
	live := make([]Live, 0, len(handles))
	for _, h := range handles {
		if l, _, ok := t.look(proof{handle: h, ending: ending, now: now}, nil); ok {
			live = append(live, l)
		}
	}
	Sort(live)
	return live
}

// Count returns how many sessions live.
func (t *Table) Count(now int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	return t.server.living
}

// Len returns how many sessions the table holds, the dead that wait for their
// tombstones included.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live
}

// rights returns the roles that a living session holds, with their names.
func (t *Table) rights(h api.ID) (holds rights, ok bool) {
	s, tag := t.shardOf(&h)
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.find(tag, &h, t)
	if n == 0 {
		return rights{}, false
	}
	e := t.entry(n)
	stripe := t.stripe(e.account)
	stripe.RLock()
	defer stripe.RUnlock()
	slot := t.account(e.account)
	return t.rightsOf(s, n, e, slot, t.realm(slot.realm)), true
}

// liveRoles returns the roles that the account of a living session and its realm
// give.
func (t *Table) liveRoles(h api.ID) (roles []*account.Role) {
	t.withEntry(h, func(e *entry) {
		stripe := t.stripe(e.account)
		stripe.RLock()
		defer stripe.RUnlock()
		slot := t.account(e.account)
		holds := t.liveRights(slot, t.realm(slot.realm))
		roles = slices.Concat(holds.live.roles, holds.inRealm.roles)
	})
	return roles
}

// fence returns the addresses that the account of a living session may be used
// from.
func (t *Table) fence(h api.ID) (allowed []netip.Prefix) {
	t.withEntry(h, func(e *entry) {
		stripe := t.stripe(e.account)
		stripe.RLock()
		defer stripe.RUnlock()
		for text := range strings.FieldsSeq(string(t.texts.bytes(t.account(e.account).fence))) {
			if p, err := netip.ParsePrefix(text); err == nil {
				allowed = append(allowed, p)
			}
		}
	})
	return allowed
}

// name returns the realm and user name of a living session's account.
func (t *Table) name(h api.ID) (realm, username string) {
	s, tag := t.shardOf(&h)
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.find(tag, &h, t)
	if n == 0 {
		return "", ""
	}
	e := t.entry(n)
	stripe := t.stripe(e.account)
	stripe.RLock()
	defer stripe.RUnlock()
	slot := t.account(e.account)
	return (*t.realms.Load())[slot.realm].name, string(t.texts.bytes(slot.name))
}
