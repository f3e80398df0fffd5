package bolt

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"sessiond/store"
)

// scan looks through all pages that the tree does not lead to.
func (m *miner) scan(size, pageSize int64, reached []uint64) error {
	if len(m.found.Lost) == 0 && !m.rootLost {
		return nil
	}
	pages := uint64(size / pageSize) //nolint:gosec // sizes
	for id := uint64(2); id < pages; id++ {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		if m.progress != nil && id%1024 == 0 {
			m.progress(id, pages)
		}
		if id/64 < uint64(len(reached)) && reached[id/64]&(1<<(id%64)) != 0 {
			continue
		}
		head := make([]byte, pageSize)
		if _, err := m.f.ReadAt(head, int64(id)*pageSize); err != nil {
			continue // a sector that cannot be read
		}
		if order.Uint16(head[8:]) != leafPage {
			continue
		}
		if more := (max(1, extent(head)) - 1) / uint64(pageSize); more > 0 && more < pages-id && more < 1<<12 { //nolint:gosec // sizes
			whole := make([]byte, int64(more+1)*pageSize)
			if _, err := m.f.ReadAt(whole, int64(id)*pageSize); err == nil {
				head = whole
			}
		}
		m.sift(head, order.Uint64(head) != id)
	}
	return nil
}

// sift notes what a page without a place in the tree has of what is lost. Of one that was
// moved all is, for it was written to a wrong place.
func (m *miner) sift(p []byte, moved bool) {
	all, _ := parse(p)
	of, used := map[string]*stray{}, 0
	for _, e := range all {
		if used += len(e.key) + len(e.value); used > len(p) {
			break // they overlap
		}
		if e.flags == bucketLeaf {
			m.siftBucket(e)
			continue
		}
		for _, kind := range m.kinds {
			if rev, ok := m.unseal(kind, e); ok {
				if of[kind] == nil {
					of[kind] = &stray{}
				}
				m.take(of[kind], rev, e)
				break
			}
		}
	}
	for kind, s := range of {
		slices.SortFunc(s.elements, func(a, b element) int { return bytes.Compare(a.key, b.key) })
		m.strays[kind] = append(m.strays[kind], *s)
		if moved { // what stands in its own place is older
			m.lose(kind, s.elements[0].key, append(slices.Clone(s.elements[len(s.elements)-1].key), 0))
		}
	}
}

// siftBucket does so for a bucket that is small enough to stand in its parent's page.
func (m *miner) siftBucket(e element) {
	kind := string(e.key)
	if len(e.value) < bucketHead+pageHead || order.Uint64(e.value) != 0 {
		m.know(kind)
		return
	}
	all, _ := parse(slices.Clone(e.value[bucketHead:]))
	var s stray
	for _, e := range all {
		if kind == metaKind && bytes.Equal(e.key, stateName) {
			m.takeState(e.value)
		} else if rev, ok := m.unseal(kind, e); ok {
			m.take(&s, rev, e)
		}
	}
	slices.SortFunc(s.elements, func(a, b element) int { return bytes.Compare(a.key, b.key) })
	if len(s.elements) > 0 && kind != metaKind {
		m.know(kind)
		m.strays[kind] = append(m.strays[kind], s)
	}
}

// take notes a good value of a page.
func (m *miner) take(s *stray, rev store.Rev, e element) {
	s.newest = max(s.newest, rev)
	e.key, e.value = bytes.Clone(e.key), bytes.Clone(e.value) // of a page that may claim much
	s.elements = append(s.elements, e)
}

// adopt keeps of the strays what is lost otherwise.
func (m *miner) adopt() error {
	for _, kind := range m.kinds {
		strays := m.strays[kind]
		slices.SortStableFunc(strays, func(a, b stray) int {
			return cmp.Or(cmp.Compare(b.newest, a.newest), cmp.Compare(len(a.elements), len(b.elements)))
		})
		var spoken ranges // for which a newer page has spoken
		for _, s := range strays {
			for _, e := range s.elements {
				if err := m.adoptOne(kind, e, spoken); err != nil {
					return err
				}
			}
			last := s.elements[len(s.elements)-1].key
			spoken = spoken.with(bounds{s.elements[0].key, append(slices.Clone(last), 0)})
		}
	}
	return nil
}

func (m *miner) adoptOne(kind string, e element, spoken ranges) error {
	rev, _, err := unseal(kind, e.key, e.value)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(m.found.Lost, func(l Lost) bool { return l.has(kind, e.key) && rev > l.after }) {
		return nil
	}
	there, err := m.to.rev(kind, e.key)
	if err != nil {
		return err
	}
	switch {
	case there >= rev:
		return nil
	case there == 0 && kind != logKind && spoken.has(e.key):
		return nil
	}
	if kind != logKind {
		m.found.Doubtful[kind+string(e.key)] = true
	}
	return m.keep(kind, e, rev)
}

// ranges are bounds in order, none of which touches the next: a file may have lost the
// way to all of its pages.
type ranges []bounds

// behind returns how many of them begin at key or before.
func (r ranges) behind(key []byte) int {
	return sort.Search(len(r), func(i int) bool { return bytes.Compare(r[i].low, key) > 0 })
}

func (r ranges) has(key []byte) bool {
	i := r.behind(key)
	return i > 0 && bytes.Compare(key, r[i-1].high) < 0
}

// with adds bounds, which have an end.
func (r ranges) with(b bounds) ranges {
	from, to := r.behind(b.low), r.behind(b.high)
	if from > 0 && bytes.Compare(r[from-1].high, b.low) >= 0 {
		from--
		b.low = r[from].low
	}
	if to > from && bytes.Compare(r[to-1].high, b.high) > 0 {
		b.high = r[to-1].high
	}
	return slices.Replace(r, from, to, b)
}
