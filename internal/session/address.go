package session

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/api"
	"sessiond/store"
)

// maxSightings is how many addresses of a session are kept.
const maxSightings = 5

// A Sighting is the first use of a session from an address.
type Sighting struct {
	Address netip.Addr
	At      int64 // Unix seconds
}

// sight adds an address to those that the session was used from, and reports
// whether it is a new one. The list begins with the address of the creation and is
// empty as long as there is no other; the oldest make room.
func (r *Record) sight(s Sighting) bool {
	if s.Address == r.Address && len(r.Sightings) == 0 || slices.ContainsFunc(r.Sightings, func(old Sighting) bool { return old.Address == s.Address }) {
		return false
	}
	if len(r.Sightings) == 0 && r.Address.IsValid() {
		r.Sightings = append(r.Sightings, Sighting{r.Address, r.Created})
	}
	r.Sightings = append(r.Sightings, s)
	r.Sightings = r.Sightings[max(0, len(r.Sightings)-maxSightings):]
	return true
}

// sightings notes from where sessions are used, without a write and mostly without
// a lock: what was noted lately is not noted again. It may forget, and then notes
// twice; where too many wait it leaves one out until its next use.
type sightings struct {
	seed   maphash.Seed
	lately [4096]atomic.Uint64 // hashes of what was noted

	mu      sync.Mutex
	waiting []sighted // at most maxWaiting
}

const maxWaiting = 1024

type sighted struct {
	handle api.ID
	Sighting
}

func (s *sightings) note(h api.ID, from netip.Addr, now int64) {
	hash := maphash.Comparable(s.seed, struct {
		handle  api.ID
		address netip.Addr
	}{h, from})
	slot := &s.lately[hash%uint64(len(s.lately))]
	if slot.Load() == hash {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) < maxWaiting {
		s.waiting = append(s.waiting, sighted{h, Sighting{from, now}})
		slot.Store(hash)
	}
}

func (s *sightings) take() []sighted {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.waiting
	s.waiting = nil
	return waiting
}

// forget has everything noted again at its next use.
func (s *sightings) forget() {
	for i := range s.lately {
		s.lately[i].Store(0)
	}
}

// UsedFrom notes that a living session is used from an address; an invalid one is
// not known. It is written some seconds later.
func (k *Keeper) UsedFrom(h api.ID, from netip.Addr) {
	if from.IsValid() {
		k.table.sightings.note(h, from, k.now())
	}
}

// sightBatch is how many sessions are written in a commit: each is two conditions
// and a change.
const sightBatch = 30

// flushSightings writes the new addresses of sessions. Revisions stay: nobody
// altered anything.
func (k *Keeper) flushSightings(ctx context.Context) error {
	uses := map[api.ID][]Sighting{}
	for _, s := range k.table.sightings.take() {
		uses[s.handle] = append(uses[s.handle], s.Sighting)
	}
	handles := make([]api.ID, 0, len(uses))
	for h := range uses {
		handles = append(handles, h)
	}
	var errs []error
	for batch := range slices.Chunk(handles, sightBatch) {
		err := k.writeSightings(ctx, batch, uses)
		if err == nil {
			continue
		}
		for i := range batch { // one of them holds the others up
			if err := store.Retry(func() error { return k.writeSightings(ctx, batch[i:i+1], uses) }); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if errs != nil {
		k.table.sightings.forget()
	}
	return errors.Join(errs...)
}

func (k *Keeper) writeSightings(ctx context.Context, handles []api.ID, uses map[api.ID][]Sighting) error {
	var tx store.Tx
	for _, h := range handles {
		r, rev, err := k.read(ctx, h)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		changed := false
		for _, s := range uses[h] {
			changed = r.sight(s) || changed
		}
		if _, err := k.store.Get(ctx, endKey(h)); !changed || err == nil { // or it has ended
			continue
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		tx.If = append(tx.If, store.Cond{Key: liveKey(h), Rev: rev}, store.Cond{Key: endKey(h)})
		tx.Put = append(tx.Put, store.Put{Key: liveKey(h), Value: r.encode()})
	}
	if len(tx.Put) == 0 {
		return nil
	}
	_, err := k.store.Commit(ctx, tx)
	return err
}

const (
	fgAddress protowire.Number = 1 + iota
	fgAt
)

func (s *Sighting) encode() []byte {
	e := encoder(make([]byte, 0, 32))
	e.bytes(fgAddress, s.Address.AsSlice())
	e.signed(fgAt, s.At)
	return e
}

func decodeSighting(data []byte) (Sighting, error) {
	var s Sighting
	err := fields(data, func(f protowire.Number, n uint64, b []byte) error {
		switch f {
		case fgAddress:
			s.Address, _ = netip.AddrFromSlice(b)
		case fgAt:
			s.At = signed(n)
		default:
			return unknown(f)
		}
		return nil
	})
	if err == nil && !s.Address.IsValid() {
		err = ErrRecord
	}
	return s, err
}
