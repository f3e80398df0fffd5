package bolt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"sessiond/store"
)

// Progress is told how much of something is done. Both are of one unit, whatever
// that is.
type Progress func(done, total uint64)

// A Check says what is wrong with a store's file, which nobody writes to; nil: it
// is sound. Damage wraps store.ErrCorrupt. It only reads, at places of its choice,
// and need not be in this process.
type Check func(ctx context.Context, f *os.File, p Progress) error

// check is the Check of this process.
func check(ctx context.Context, f *os.File, p Progress) error {
	_, err := survey(ctx, f, p)
	return err
}

// survey reads the whole of a file: that its pages hold together, the CRC of each
// value, that none is missing, and the chain of the log from the anchor under
// store.AnchorKey to the head in the state. What has been counted when it finds
// damage, it returns as well. It reads the file and does not map it, so it fears
// nothing that stands there, a disk that gives errors included.
func survey(ctx context.Context, f *os.File, p Progress) (Summary, error) {
	sum := Summary{Kinds: map[string]uint64{}}
	t, err := readTree(f)
	if err != nil {
		return sum, err
	}
	if p != nil {
		t.report = p
		p(0, t.pages)
	}
	ctx, cancel := context.WithCancel(ctx)
	var ahead sync.WaitGroup
	defer ahead.Wait()
	defer cancel()
	ahead.Go(func() { readAhead(ctx, f, int64(t.pages)*t.pageSize) }) //nolint:gosec // less than the file
	links := newChain()
	var newest store.Rev
	st, err := t.take(ctx, func(kind string, name, value []byte) error {
		rev, payload, err := unseal(kind, name, value)
		if err != nil {
			return err
		}
		newest = max(newest, rev)
		sum.Bytes += int64(len(kind) + len(name) + len(value))
		if kind != metaKind {
			sum.Kinds[kind]++
		}
		return links.add(kind, name, payload)
	})
	head, broken := links.end()
	sum.Rev, sum.Head, sum.Format, sum.ID = st.rev, st.head, int(st.format), fmt.Sprintf("%x", st.id)
	switch {
	case err != nil:
		return sum, err
	case broken != nil:
		return sum, broken
	case newest > st.rev:
		return sum, corrupt("a value has revision %d, beyond the store's %d", newest, st.rev)
	case head != st.head:
		return sum, corrupt("log: it ends at position %d, its head is at %d", head.Seq, st.head.Seq)
	}
	info, err := f.Stat()
	if err != nil {
		return sum, fmt.Errorf("bolt: %w", err)
	}
	sum.Size = info.Size()
	return sum, nil
}

// take walks all pages of f, shows each value to v, and checks that none is
// missing.
func take(ctx context.Context, f *os.File, v visit) (state, error) {
	t, err := readTree(f)
	if err != nil {
		return state{}, err
	}
	return t.take(ctx, v)
}

// take walks all pages, shows each value to v, and checks that none is missing.
func (t *tree) take(ctx context.Context, v visit) (state, error) {
	var st *state
	var found census
	err := t.walk(ctx, func(kind string, name, value []byte) error {
		switch {
		case kind != metaKind:
			found.add(value)
		case bytes.Equal(name, stateName):
			read, err := decodeState(value)
			if err == nil {
				err = read.readable()
			}
			if err != nil {
				return err
			}
			st = &read
		}
		return v(kind, name, value)
	})
	switch {
	case err != nil:
		return state{}, err
	case st == nil:
		return state{}, damaged(metaKind, stateName, "missing")
	case st.held != found:
		return *st, corrupt("values are missing or not the last: there are %d, with the sum %x; there should be %d, with %x",
			found.count, found.sum, st.held.count, st.held.sum)
	}
	return *st, nil
}

// readAhead has the system read a file in order, which is faster than page by page
// wherever the tree leads. That it cannot, the walk finds out.
func readAhead(ctx context.Context, f io.ReaderAt, size int64) {
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size && ctx.Err() == nil; at += int64(len(buf)) {
		if _, err := f.ReadAt(buf, at); err != nil {
			return
		}
	}
}

// chain follows the chain of the log beside the walk that finds its entries: the
// hashes are half of the work.
type chain struct {
	batch links
	full  chan links
	spare chan links
	done  chan struct{}

	// The goroutine's until done.
	head   store.Head
	broken error
}

// links are entries of the log, one behind the other, and where each ends.
type links struct {
	mem  []byte
	ends []int
}

const (
	logKind   = "log"
	seqName   = 1 + 8     // bytes of the name of an entry
	linkBytes = 256 << 10 // of a batch
	linkWait  = 4         // batches that may wait
)

func newChain() *chain {
	c := &chain{full: make(chan links, linkWait), spare: make(chan links, linkWait+2), done: make(chan struct{})}
	go c.run()
	return c
}

// add takes what it needs of a value. Kinds are walked in order, so the anchor
// comes before the entries.
func (c *chain) add(kind string, name, payload []byte) error {
	switch {
	case len(kind)+len(name) == len(store.AnchorKey) && store.AnchorKey[:len(kind)] == kind && store.AnchorKey[len(kind):] == string(name):
		anchor, err := store.DecodeHead(payload)
		if err != nil {
			return damaged(kind, name, "not a head")
		}
		c.head = anchor // before the first batch
		return nil
	case kind != logKind:
		return nil
	case len(name) != seqName:
		return damaged(kind, name, "not an entry")
	}
	if len(c.batch.mem)+len(name)+len(payload) > linkBytes {
		c.pass()
	}
	c.batch.mem = append(append(c.batch.mem, name...), payload...)
	c.batch.ends = append(c.batch.ends, len(c.batch.mem))
	return nil
}

func (c *chain) pass() {
	c.full <- c.batch
	select {
	case c.batch = <-c.spare:
	default:
		c.batch = links{mem: make([]byte, 0, linkBytes)}
	}
}

// end returns the head that was reached, or where the chain is broken.
func (c *chain) end() (store.Head, error) {
	c.pass()
	close(c.full)
	<-c.done
	return c.head, c.broken
}

func (c *chain) run() {
	defer close(c.done)
	for b := range c.full {
		from := 0
		for _, to := range b.ends {
			if c.broken == nil {
				c.broken = c.follow(b.mem[from:from+seqName], b.mem[from+seqName:to])
			}
			from = to
		}
		b.mem, b.ends = b.mem[:0], b.ends[:0]
		c.spare <- b
	}
}

// follow goes on to the entry that is stored under a name.
func (c *chain) follow(name, payload []byte) error {
	e, err := store.DecodeEntry(store.Item{Key: logKind + string(name), Value: payload})
	if err != nil {
		return err
	}
	next := store.Head{Seq: e.Seq - 1, Hash: c.head.Hash}.Next(e.Data)
	switch {
	case e.Hash == next.Hash:
	case next.Seq != c.head.Seq+1:
		return corrupt("log: position %d is missing", c.head.Seq+1)
	default:
		return corrupt("log: the chain breaks at position %d", next.Seq)
	}
	c.head = next
	return nil
}
