package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"sessiond/store"
)

// What Salvage believes, and what not.
//
// A value is good if its CRC is, which covers kind and key too. Whether it is of the
// last commit is another question: bbolt leaves pages as they were when it frees them,
// and in those stand values that were replaced or deleted since. What the newest sound
// meta page leads to is of the last commit; and where that tree has lost nothing, it
// alone counts. Where it has lost pages, those keys are looked for in all the others:
// the page that was written last, by the newest value in it, speaks for all keys
// between its first and its last, so that an older one brings back nothing that was
// deleted. Entries of the log never change and need no such rule.
//
// If all of that together has the count and the sum of the census, it is what was
// committed last, and nothing is in doubt. Else the values from such pages are doubtful:
// they may be of sessions that have ended. Salvaged names them, for who can decide.

// Salvaged is what Salvage has found.
type Salvaged struct {
	Kinds    map[string]uint64 // values of each kind that were kept
	Expected uint64            // values that the damaged file should have had; 0: not known
	Complete bool              // the content is that of the last commit, and nothing is missing
	LogWhole bool              // the log has no holes and ends where it should
	Lost     []Lost            // where the tree was damaged, found again or not
	Doubtful map[string]bool   // keys of values that are there, but may have been replaced or deleted
	Beyond   uint64            // no position of the log and no revision was beyond
	Broken   error             // what Verify says of the damaged file; nil: it is sound
}

// Lost is a range of keys.
type Lost struct {
	Kind     string // empty: of all kinds
	From, To string // names, To not included; an empty To is the end

	after store.Rev // only what was written after it
}

// String names the range, as people read it.
func (l Lost) String() string {
	switch {
	case l.Kind == "":
		return "what was committed last"
	case l.From == "" && l.To == "":
		return "all of kind " + l.Kind
	}
	return fmt.Sprintf("kind %s, from %q to %q", l.Kind, l.From, l.To)
}

// has reports whether a key may have been among those.
func (l Lost) has(kind string, name []byte) bool {
	return (l.Kind == "" || l.Kind == kind) && string(name) >= l.From && (l.To == "" || string(name) < l.To)
}

// IsLost reports whether there may have been a value under a key that is not there.
func (s *Salvaged) IsLost(key string) bool {
	kind := store.Kind(key)
	return !s.Complete && slices.ContainsFunc(s.Lost, func(l Lost) bool { return l.has(kind, []byte(key[len(kind):])) })
}

// Touched reports whether something of a kind is lost or in doubt.
func (s *Salvaged) Touched(kind string) bool {
	return !s.Complete && slices.ContainsFunc(s.Lost, func(l Lost) bool { return l.Kind == kind || l.Kind == "" })
}

// Salvage makes a new store at draft, which must not exist, of what is good in the
// damaged file at path, which no server may have open. It reads all of the file and
// trusts none of it. Kinds name those that may be in it, for the case that the file
// has lost their names; none: any. Where the log has holes, the new one begins behind the last.
// An error means that there is no new store. The caller gives the store its name with
// Publish, once it has ended in it what may not live.
func Salvage(ctx context.Context, path, draft string, kinds []string, p Progress) (*Salvaged, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("bolt: the store cannot be opened: %w", err)
	}
	defer func() { _ = f.Close() }() // it was read
	if err := lock(ctx, f, syscall.LOCK_SH, time.Second); err != nil {
		return nil, err
	}
	if st, err := peek(ctx, f); err == nil && st.readable() != nil {
		return nil, st.readable()
	}
	_, broken := survey(ctx, f, nil)
	if broken != nil && !errors.Is(broken, store.ErrCorrupt) {
		return nil, broken
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("bolt: %w", err)
	}
	to, err := newBuilder(draft, Options{})
	if err != nil {
		return nil, err
	}
	m := &miner{
		ctx: ctx, f: f, to: to, progress: p, hints: kinds, strays: map[string][]stray{},
		found: &Salvaged{Kinds: map[string]uint64{}, Doubtful: map[string]bool{}, Broken: broken},
	}
	for _, kind := range kinds {
		m.know(kind)
	}
	if err = m.mine(info.Size()); err == nil {
		err = m.newer
	}
	if err == nil {
		err = m.finish()
	}
	if err != nil {
		to.abandon()
		return nil, err
	}
	return m.found, nil
}

// A miner salvages one file.
type miner struct {
	ctx      context.Context
	f        *os.File
	to       *builder
	progress Progress
	found    *Salvaged
	hints    []string // kinds that may be in the file; none: not known
	kinds    []string // those, and what was found

	tree *tree // of the newest sound meta page; nil: there is none

	walked   []string // kinds that the tree has
	rootLost bool     // and it may have had others
	state    *state
	strays   map[string][]stray // pages that the tree does not lead to, by kind
	newest   store.Rev
	newer    error    // of a state that a newer program has written; nil: there is none
	visited  []uint64 // one bit per page: it was walked, disowned or not
	astray   bool     // what is walked is not where its keys belong
}

// lastRev is beyond all revisions and positions that a server comes to: who has it has
// been made up, and left no room for the next.
const lastRev = 1 << 62

// stray is a page with good values of a kind.
type stray struct {
	newest   store.Rev
	elements []element // their bytes are its own
}

func (m *miner) know(kind string) {
	if len(m.hints) > 0 && !slices.Contains(m.hints, kind) {
		return
	}
	if kind != metaKind && store.Kind(kind+"/") == kind && !slices.Contains(m.kinds, kind) {
		m.kinds = append(m.kinds, kind)
	}
}

func (m *miner) mine(size int64) error {
	metas := readMetas(m.f)
	torn := metas[0] == nil || metas[1] == nil || metas[0].txid != metas[1].txid+1 && metas[1].txid != metas[0].txid+1
	for _, t := range metas {
		if t != nil && (m.tree == nil || t.txid > m.tree.txid) {
			m.tree = t
		}
	}
	pageSize := int64(os.Getpagesize())
	var reached []uint64
	if m.tree == nil {
		m.lose("", nil, nil)
	} else {
		m.tree.pages = min(m.tree.pages, uint64(size/m.tree.pageSize)) //nolint:gosec // sizes
		m.tree.seen = make([]uint64, m.tree.pages/64+1)
		m.visited = make([]uint64, len(m.tree.seen))
		pageSize = m.tree.pageSize
		if err := m.branch(0, m.tree.root, "", bounds{}); err != nil {
			return err
		}
		reached = m.tree.seen
	}
	m.rootLost = m.rootLost || m.state == nil
	if torn && m.tree != nil || m.state != nil && len(m.found.Lost) == 0 && m.to.found != m.state.held {
		m.found.Lost = append(m.found.Lost, Lost{after: m.newest}) // there may have been another commit
	}
	if err := m.scan(size, pageSize, reached); err != nil {
		return err
	}
	for _, kind := range m.kinds {
		if m.rootLost && !slices.Contains(m.walked, kind) {
			m.lose(kind, nil, nil)
		}
	}
	return m.adopt()
}

func (m *miner) lose(kind string, from, to []byte) {
	if kind == "" {
		m.rootLost = true
		return
	}
	m.found.Lost = append(m.found.Lost, Lost{Kind: kind, From: string(from), To: string(to)})
}

// branch keeps what is good below a page of the tree. What is not, is lost; errors are
// of the new file.
func (m *miner) branch(depth int, id uint64, kind string, b bounds) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	p, sound := m.page(id)
	if p == nil || depth >= maxDepth {
		m.lose(kind, b.low, b.high)
		return nil
	}
	all, whole := parse(p)
	if sound = sound && whole; !sound {
		m.lose(kind, b.low, b.high)
	}
	if slices.ContainsFunc(all, func(e element) bool { return !b.has(e.key) }) { // the number that leads here is wrong, or these are
		m.lose(kind, b.low, b.high)
		m.disown(id, len(p))
		defer func(was bool) { m.astray = was }(m.astray)
		m.astray = true
	}
	if order.Uint16(p[8:]) == leafPage {
		before := len(m.found.Lost)
		err := m.leaf(depth, kind, all, b)
		if len(m.found.Lost) > before {
			m.disown(id, len(p))
		}
		return err
	}
	if !sound {
		return nil // its children are looked for elsewhere
	}
	for i, e := range all {
		below := bounds{e.key, b.high}
		if i == 0 {
			below.low = b.low
		}
		if i+1 < len(all) {
			below.high = all[i+1].key
		}
		if err := m.branch(depth+1, e.child, kind, below); err != nil {
			return err
		}
	}
	return nil
}

// page reads a page of the tree, nil if it is none. bbolt writes what elements hold
// right behind their table, and as many pages as that takes: where a page's own numbers
// say otherwise, it is not sound.
func (m *miner) page(id uint64) (p []byte, sound bool) {
	t := m.tree
	if id < 2 || id >= t.pages || (t.seen[id/64]|m.visited[id/64])&(1<<(id%64)) != 0 {
		return nil, false
	}
	p = make([]byte, t.pageSize)
	if t.readAt(p, id) != nil || order.Uint64(p) != id {
		return nil, false
	}
	flags, count, more := order.Uint16(p[8:]), uint64(order.Uint16(p[10:])), uint64(order.Uint32(p[12:]))
	if flags != branchPage && flags != leafPage || count == 0 && flags == branchPage {
		return nil, false
	}
	t.seen[id/64] |= 1 << (id % 64)
	m.visited[id/64] |= 1 << (id % 64)
	sound = true
	if count > 0 {
		at := pageHead + 4 // pos of the first element
		if flags == branchPage {
			at = pageHead
		}
		if slots := uint64(order.Uint32(p[at:])) / elementSize; slots != count {
			sound = false
			if pageHead+slots*elementSize <= uint64(len(p)) {
				order.PutUint16(p[10:], uint16(slots)) //nolint:gosec // fits into a page
			}
		}
	}
	if need := (max(1, extent(p)) - 1) / uint64(t.pageSize); need != more { //nolint:gosec // a size
		more, sound = need, false
	}
	if more == 0 {
		return p, sound
	}
	if more >= t.pages-id || more > 1<<12 {
		return p, false
	}
	whole := make([]byte, int64(more+1)*t.pageSize)
	if t.readAt(whole, id) != nil {
		return p, false
	}
	copy(whole, p[:pageHead]) // with what was corrected
	for i := id; sound && i <= id+more; i++ {
		t.seen[i/64] |= 1 << (i % 64)
	}
	return whole, sound
}

// disown has a page be looked through once more, and those that it claims to go on in:
// not all that it holds is good, so they may be others.
func (m *miner) disown(id uint64, size int) {
	for i := range uint64(size) / uint64(m.tree.pageSize) { //nolint:gosec // sizes
		m.tree.seen[(id+i)/64] &^= 1 << ((id + i) % 64)
	}
}

// extent returns where the last element of a page ends.
func extent(p []byte) (end uint64) {
	branch := order.Uint16(p[8:]) == branchPage
	for i := range uint64(order.Uint16(p[10:])) {
		at := pageHead + i*elementSize
		if at+elementSize > uint64(len(p)) {
			break
		}
		head := p[at:]
		if branch {
			end = max(end, at+uint64(order.Uint32(head))+uint64(order.Uint32(head[4:])))
		} else {
			end = max(end, at+uint64(order.Uint32(head[4:]))+uint64(order.Uint32(head[8:]))+uint64(order.Uint32(head[12:])))
		}
	}
	return end
}

// leaf keeps the good values of a leaf of the tree. Of one that is not good the key
// may be wrong too: what is lost are the keys between its good neighbours.
func (m *miner) leaf(depth int, kind string, all []element, b bounds) error {
	low, bad := b.low, false
	for _, e := range all {
		switch {
		case kind == "" && e.flags == bucketLeaf:
			if err := m.bucket(depth, e); err != nil {
				return err
			}
		case kind == "":
			m.lose("", nil, nil) // the name of a kind is not what it was
		case kind == metaKind:
			if bytes.Equal(e.key, stateName) {
				m.takeState(e.value)
			}
		default:
			rev, good := m.unseal(kind, e)
			if e.flags != 0 || !good {
				bad = true
				continue
			}
			if bad {
				m.lose(kind, low, e.key)
			}
			low, bad = append(slices.Clone(e.key), 0), false
			if err := m.keep(kind, e, rev); err != nil {
				return err
			}
		}
	}
	if bad {
		m.lose(kind, low, b.high)
	}
	return nil
}

func (m *miner) bucket(depth int, e element) error {
	kind := string(e.key)
	if store.Kind(kind+"/") != kind || len(e.value) < bucketHead || len(m.hints) > 0 && kind != metaKind && !slices.Contains(m.hints, kind) {
		m.rootLost = true // a bit of the name may be wrong
		return nil
	}
	m.walked = append(m.walked, kind)
	m.know(kind)
	if root := order.Uint64(e.value); root != 0 {
		return m.branch(depth+1, root, kind, bounds{})
	}
	all, sound := parse(slices.Clone(e.value[bucketHead:]))
	if !sound {
		m.lose(kind, nil, nil)
	}
	return m.leaf(depth, kind, all, bounds{})
}

func (m *miner) takeState(v []byte) {
	st, err := decodeState(v)
	if err != nil {
		return
	}
	if err := st.readable(); err != nil {
		m.newer = err
	}
	if max(uint64(st.rev), st.head.Seq) < lastRev && (m.state == nil || st.rev > m.state.rev) {
		m.state = &st
		m.newest = max(m.newest, st.rev)
	}
}

// unseal returns the revision of a good value, which a server may have written.
func (m *miner) unseal(kind string, e element) (store.Rev, bool) {
	rev, _, err := unseal(kind, e.key, e.value)
	if err != nil || rev == 0 || rev >= lastRev || len(kind)+len(e.key) > store.MaxKeyLen {
		return 0, false
	}
	m.newest = max(m.newest, rev)
	return rev, true
}

// keep takes a good value over, unless a newer one is there.
func (m *miner) keep(kind string, e element, rev store.Rev) error {
	there, err := m.to.rev(kind, e.key)
	if err != nil || there > rev {
		return err
	}
	if there == 0 {
		m.found.Kinds[kind]++
	}
	if m.astray && kind != logKind {
		m.found.Doubtful[kind+string(e.key)] = true
	}
	return m.to.add(kind, e.key, e.value)
}

// parse returns the elements of a page that lie within it. It is sound if all do, and
// are in order.
func parse(p []byte) (all []element, sound bool) {
	if len(p) < pageHead {
		return nil, false
	}
	err := elements(p, 0, bounds{}, "", func(e element) error {
		all = append(all, e)
		return nil
	})
	if err == nil {
		return all, true
	}
	// The same without the order, and without those that are nowhere.
	all = all[:0]
	size, branch := uint64(len(p)), order.Uint16(p[8:]) == branchPage
	for i := range uint64(order.Uint16(p[10:])) {
		at := pageHead + i*elementSize
		if branch || at+elementSize > size {
			break
		}
		head := p[at:]
		pos, ksize, vsize := uint64(order.Uint32(head[4:])), uint64(order.Uint32(head[8:])), uint64(order.Uint32(head[12:]))
		from := at + pos
		if pos < elementSize || ksize == 0 || ksize > store.MaxKeyLen || from+ksize+vsize > size {
			continue
		}
		all = append(all, element{flags: order.Uint32(head), key: p[from : from+ksize : from+ksize], value: p[from+ksize : from+ksize+vsize]})
	}
	return all, false
}

// finish settles what is in doubt and closes the new file.
func (m *miner) finish() error {
	s := m.found
	st := newState()
	head := store.Head{}
	if m.state != nil {
		s.Expected, head = m.state.held.count, m.state.head
		s.Complete = m.to.found == m.state.held
		st.head, st.id = head, m.state.id
	}
	if s.Complete {
		clear(s.Doubtful)
	}
	if err := m.mendLog(&st, head); err != nil {
		return err
	}
	st.rev = m.newest
	s.Beyond = max(uint64(m.newest), head.Seq, st.head.Seq)
	return m.to.finish(st)
}

// Publish gives a store that Salvage has made its name, once it is verified: durably,
// and never that of another file (ErrExists).
func Publish(ctx context.Context, draft, path string) (Summary, error) {
	sum, err := Verify(ctx, draft, nil)
	if err != nil {
		return sum, fmt.Errorf("bolt: what was salvaged is not what it should be: %w", err)
	}
	return sum, publish(draft, path)
}
