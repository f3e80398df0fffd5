package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/fnv"
	"io"
	"os"
)

// bbolt's file, as far as it takes to know that bbolt can read it without
// crashing: https://github.com/etcd-io/bbolt, internal/common, page.go, meta.go
// and inode.go. Numbers are in the byte order of the machine.
const (
	pageHead    = 16 // id 8, flags 2, count 2, overflow 4
	elementSize = 16 // branch: pos 4, ksize 4, child 8; leaf: flags 4, pos 4, ksize 4, vsize 4
	bucketHead  = 16 // root 8, sequence 8

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10
	bucketLeaf   = 0x01

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = ^uint64(0)

	maxDepth = 64
)

var order = binary.NativeEndian

// tree is the tree of pages that the newest sound meta page describes.
type tree struct {
	f        io.ReaderAt
	pageSize int64
	pages    uint64 // ids are below it
	root     uint64
	freelist uint64
	txid     uint64
	seen     []uint64 // one bit per page
	bufs     [maxDepth][]byte

	read   uint64                   // pages that were read
	report func(done, total uint64) // is told of read and pages once in a while; nil: nobody is
}

// readTree reads the meta pages of f. A commit writes one of them, and fits into a
// sector of any disk, so that a power cut leaves both of them sound: of the last
// commit and the one before it. Where one is not, nobody knows which commit was the
// last.
func readTree(f *os.File) (*tree, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	metas := readMetas(f)
	switch a, b := metas[0], metas[1]; {
	case info.Size() == 0:
		return nil, corrupt("the file is empty")
	case a == nil && b == nil:
		return nil, corrupt("neither meta page is sound: not a store, or cut off, or overwritten")
	case a == nil:
		return nil, corrupt("meta page 0 is not sound: what was committed last may be missing")
	case b == nil:
		return nil, corrupt("meta page 1 is not sound: what was committed last may be missing")
	case a.txid != b.txid+1 && b.txid != a.txid+1:
		return nil, corrupt("the meta pages are of transactions %d and %d, which did not follow each other", a.txid, b.txid)
	}
	best := metas[0]
	if metas[1].txid > best.txid {
		best = metas[1]
	}
	if int64(best.pages)*best.pageSize > info.Size() { //nolint:gosec // a sound meta page
		return nil, corrupt("the file is cut off: %d bytes, it needs %d", info.Size(), int64(best.pages)*best.pageSize) //nolint:gosec // same
	}
	best.seen = make([]uint64, best.pages/64+1)
	return best, nil
}

// readMetas returns what the two meta pages say, nil for one that is not sound. The
// second is one page in, so they have to agree about its size.
func readMetas(f io.ReaderAt) (metas [2]*tree) {
	metas[0] = readMeta(f, 0, 0)
	if metas[0] != nil {
		metas[1] = readMeta(f, metas[0].pageSize, 1)
		return metas
	}
	for size := int64(1 << 10); size <= 1<<16; size <<= 1 {
		if t := readMeta(f, size, 1); t != nil && t.pageSize == size {
			metas[1] = t
			return metas
		}
	}
	return metas
}

// readMeta returns what the meta page id at offset at says, nil if it is not sound.
func readMeta(f io.ReaderAt, at int64, id uint64) *tree {
	var buf [pageHead + 64]byte
	if _, err := f.ReadAt(buf[:], at); err != nil {
		return nil
	}
	m := buf[pageHead:]
	h := fnv.New64a()
	_, _ = h.Write(m[:56]) // never fails
	t := &tree{
		f:        f,
		pageSize: int64(order.Uint32(m[8:])),
		root:     order.Uint64(m[16:]),
		freelist: order.Uint64(m[32:]),
		pages:    order.Uint64(m[40:]),
		txid:     order.Uint64(m[48:]),
	}
	switch size := t.pageSize; {
	case order.Uint32(m) != metaMagic || order.Uint32(m[4:]) != metaVersion || order.Uint64(m[56:]) != h.Sum64(),
		order.Uint64(buf[:]) != id || order.Uint16(buf[8:]) != metaPage,
		size < 1<<10 || size > 1<<16 || size&(size-1) != 0 || t.pages > 1<<40:
		return nil
	}
	return t
}

// visit is told of each value, in order; its bytes are good until it returns.
type visit func(kind string, name, value []byte) error

// walk reads all pages in use, checks that they hold together, and shows each
// value to v. It reads the file, not mapped memory, and fears
// nothing that may stand there.
func (t *tree) walk(ctx context.Context, v visit) error {
	if t.freelist != noFreelist {
		if _, err := t.page(0, t.freelist, "", freelistPage); err != nil {
			return err
		}
	}
	return t.kinds(ctx, func(kind string, bucket element) error { return t.values(ctx, kind, bucket, v) })
}

// kinds shows the bucket of each kind to fn.
func (t *tree) kinds(ctx context.Context, fn func(kind string, bucket element) error) error {
	return t.branch(ctx, 0, t.root, bounds{}, "", func(e element) error {
		if e.flags != bucketLeaf {
			return corrupt("a value outside all kinds, %q", e.key)
		}
		return fn(string(e.key), e)
	})
}

// values shows the values in the bucket of a kind to v.
func (t *tree) values(ctx context.Context, kind string, bucket element, v visit) error {
	if len(bucket.value) < bucketHead {
		return corrupt("kind %s: its bucket is cut off", kind)
	}
	each := func(e element) error {
		if e.flags != 0 {
			return corrupt("kind %s, key %q: not a value", kind, kind+string(e.key))
		}
		return v(kind, e.key, e.value)
	}
	if root := order.Uint64(bucket.value); root != 0 {
		return t.branch(ctx, bucket.depth+1, root, bounds{}, kind, each)
	}
	inline := bucket.value[bucketHead:]
	if len(inline) < pageHead || order.Uint16(inline[8:]) != leafPage {
		return corrupt("kind %s: its bucket is cut off", kind)
	}
	return elements(inline, bucket.depth, bounds{}, kind, each)
}

// element is an entry of a page.
type element struct {
	depth      int
	flags      uint32 // of a leaf
	child      uint64 // of a branch
	key, value []byte
}

// bounds are what the keys of a page have to keep to: from low on, below high,
// nil for none.
type bounds struct{ low, high []byte }

// has reports whether a key keeps to them.
func (b bounds) has(key []byte) bool {
	return bytes.Compare(key, b.low) >= 0 && (b.high == nil || bytes.Compare(key, b.high) < 0)
}

// branch walks the page id and all below it.
func (t *tree) branch(ctx context.Context, depth int, id uint64, b bounds, kind string, leaf func(element) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := t.page(depth, id, kind, branchPage|leafPage)
	if err != nil {
		return err
	}
	if order.Uint16(p[8:]) == leafPage {
		return elements(p, depth, b, kind, leaf)
	}
	if order.Uint16(p[10:]) == 0 {
		return corrupt("%s: page %d: a branch without children", of(kind), id)
	}
	// A child's keys end where the next child's begin, so each waits for the next.
	var last element
	down := func(high []byte) error {
		return t.branch(ctx, depth+1, last.child, bounds{last.key, high}, kind, leaf)
	}
	if err := elements(p, depth, b, kind, func(e element) error {
		defer func() { last = e }()
		if last.key == nil {
			return nil
		}
		return down(e.key)
	}); err != nil {
		return err
	}
	return down(b.high)
}

// page reads a page of one of the given types that has not been read before.
func (t *tree) page(depth int, id uint64, kind string, types uint16) ([]byte, error) {
	if depth >= maxDepth {
		return nil, corrupt("%s: page %d: too deep", of(kind), id)
	}
	if id < 2 || id >= t.pages {
		return nil, corrupt("%s: page %d is outside the file", of(kind), id)
	}
	if len(t.bufs[depth]) == 0 {
		t.bufs[depth] = make([]byte, t.pageSize)
	}
	p := t.bufs[depth][:t.pageSize]
	if err := t.readAt(p, id); err != nil {
		return nil, corrupt("%s: page %d cannot be read: %v", of(kind), id, err)
	}
	flags, more := order.Uint16(p[8:]), uint64(order.Uint32(p[12:]))
	if order.Uint64(p) != id || flags&types == 0 || flags&(flags-1) != 0 || more >= t.pages-id {
		return nil, corrupt("%s: page %d is not a page", of(kind), id)
	}
	for i := id; i <= id+more; i++ {
		if t.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, corrupt("%s: page %d is used twice", of(kind), i)
		}
		t.seen[i/64] |= 1 << (i % 64)
	}
	t.count(1 + more)
	if more > 0 {
		p = make([]byte, (1+int64(more))*t.pageSize) //nolint:gosec // less than the file
		if err := t.readAt(p, id); err != nil {
			return nil, corrupt("%s: page %d cannot be read: %v", of(kind), id, err)
		}
	}
	return p, nil
}

// count counts pages that were read, and tells of each hundredth of them.
func (t *tree) count(pages uint64) {
	before := t.read * 100 / t.pages
	if t.read += pages; t.report != nil && t.read*100/t.pages > before {
		t.report(t.read, t.pages)
	}
}

func (t *tree) readAt(p []byte, id uint64) error {
	_, err := t.f.ReadAt(p, int64(id)*t.pageSize) //nolint:gosec // within the file
	return err
}

// elements shows each element of a page to fn, once it is known to lie within
// the page and within bounds.
func elements(p []byte, depth int, b bounds, kind string, fn func(element) error) error {
	size, branch := uint64(len(p)), order.Uint16(p[8:]) == branchPage
	var last []byte
	for i := range uint64(order.Uint16(p[10:])) {
		at := pageHead + i*elementSize
		if at+elementSize > size {
			return corrupt("%s: page %d: more elements than fit", of(kind), order.Uint64(p))
		}
		e, head := element{depth: depth}, p[at:]
		var pos, ksize, vsize uint64
		if branch {
			pos, ksize = uint64(order.Uint32(head)), uint64(order.Uint32(head[4:]))
			e.child = order.Uint64(head[8:])
		} else {
			e.flags = order.Uint32(head)
			pos, ksize, vsize = uint64(order.Uint32(head[4:])), uint64(order.Uint32(head[8:])), uint64(order.Uint32(head[12:]))
		}
		from := at + pos
		if pos < elementSize || ksize == 0 || from+ksize+vsize > size {
			return corrupt("%s: page %d: element %d is outside the page", of(kind), order.Uint64(p), i)
		}
		e.key, e.value = p[from:from+ksize:from+ksize], p[from+ksize:from+ksize+vsize]
		if i > 0 && bytes.Compare(last, e.key) >= 0 || !b.has(e.key) {
			return corrupt("%s: page %d: key %q is out of order", of(kind), order.Uint64(p), e.key)
		}
		last = e.key
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// of names the kind that a page belongs to.
func of(kind string) string {
	if kind == "" {
		return "the table of kinds"
	}
	return "kind " + kind
}
