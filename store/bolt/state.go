package bolt

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// Format is that of the files which this program writes. Each says which format a
// program has to know that opens it, and what a newer program adds to the state,
// an older one keeps as it is.
//
//	1  the first: rev, census, head
//	2  says its format and its least reader, and has an identity
const Format = 2

// leastReader is the format that a program has to know to open what this one writes.
// A program of format 1 refuses it unread, as damaged.
const leastReader = 2

// ErrNewer means that a file was written by a newer program, in a way that this one
// would spoil.
var ErrNewer = errors.New("the data was written by a newer sessiond")

// state is what the bucket "meta" holds.
type state struct {
	rev  store.Rev
	head store.Head
	held census

	format uint16
	least  uint16   // the format that a program has to know
	id     [16]byte // of the file from its creation on, its copies included
	more   []byte   // what newer programs have added
}

// newState is that of an empty store.
func newState() state {
	st := state{format: Format, least: leastReader}
	_, _ = rand.Read(st.id[:]) // never fails
	return st
}

// readable says ErrNewer if this program must not open the file.
func (st *state) readable() error {
	if st.least <= Format {
		return nil
	}
	return fmt.Errorf("bolt: %w: its format is %d, which takes a program that knows format %d, and this one knows %d; nothing was changed: run that program, or restore a backup of this one's",
		ErrNewer, st.format, st.least, Format)
}

// census tells whether all values are there: a flipped bit in a page's head can
// hide some without breaking the tree.
type census struct {
	count uint64 // of values outside "meta"
	sum   uint64 // of their CRCs, modulo 2^64
}

func (c *census) add(v []byte) {
	c.count++
	c.sum += checksum(v)
}

func (c *census) remove(v []byte) {
	c.count--
	c.sum -= checksum(v)
}

const metaKind = "meta"

var (
	metaBucket = []byte(metaKind)
	stateName  = []byte("/state")
)

func readState(tx *bbolt.Tx) (state, error) {
	b := tx.Bucket(metaBucket)
	if b == nil {
		return state{}, fmt.Errorf("%w: not a store of this server: no bucket %s", store.ErrCorrupt, metaKind)
	}
	v := b.Get(stateName)
	if v == nil {
		return state{}, damaged(metaKind, stateName, "missing")
	}
	return decodeState(v)
}

// peek reads the state of a file without reading the rest.
func peek(ctx context.Context, f *os.File) (state, error) {
	t, err := readTree(f)
	if err != nil {
		return state{}, err
	}
	st, found := state{}, false
	err = t.kinds(ctx, func(kind string, bucket element) error {
		if kind != metaKind {
			return nil
		}
		return t.values(ctx, kind, bucket, func(_ string, name, value []byte) (err error) {
			if bytes.Equal(name, stateName) {
				st, err = decodeState(value)
				found = true
			}
			return err
		})
	})
	if err == nil && !found {
		err = damaged(metaKind, stateName, "missing")
	}
	return st, err
}

// Lengths of the parts of a state.
const (
	stateSums  = 8 + 8
	stateHead  = 1 + 8 + 32
	stateAbout = 2 + 2 + 16 // from format 2 on
)

func decodeState(v []byte) (state, error) {
	rev, payload, err := unseal(metaKind, stateName, v)
	if err != nil {
		return state{}, err
	}
	if len(payload) < stateSums+stateHead {
		return state{}, damaged(metaKind, stateName, "cut off")
	}
	st := state{rev: rev, held: census{binary.BigEndian.Uint64(payload), binary.BigEndian.Uint64(payload[8:])}, format: 1, least: 1}
	if st.head, err = store.DecodeHead(payload[stateSums : stateSums+stateHead]); err != nil {
		return state{}, damaged(metaKind, stateName, "not a head")
	}
	about := payload[stateSums+stateHead:]
	if len(about) == 0 {
		return st, nil
	}
	if len(about) < stateAbout {
		return state{}, damaged(metaKind, stateName, "cut off")
	}
	st.format, st.least = binary.BigEndian.Uint16(about), binary.BigEndian.Uint16(about[2:])
	st.more = bytes.Clone(about[4+copy(st.id[:], about[4:]):])
	if st.format < 2 || st.least > st.format {
		return state{}, damaged(metaKind, stateName, "not a format")
	}
	return st, nil
}

// encode appends the stored value of st to buf.
func (st *state) encode(buf []byte) []byte {
	start := len(buf)
	buf = append(buf, make([]byte, valueHead)...)
	buf = binary.BigEndian.AppendUint64(buf, st.held.count)
	buf = binary.BigEndian.AppendUint64(buf, st.held.sum)
	buf = append(buf, st.head.Encode()...)
	if st.format >= 2 {
		buf = binary.BigEndian.AppendUint16(buf, st.format)
		buf = binary.BigEndian.AppendUint16(buf, st.least)
		buf = append(append(buf, st.id[:]...), st.more...)
	}
	return seal(buf, start, metaKind, stateName, st.rev)
}

func writeState(b *bbolt.Bucket, st state) error { return b.Put(stateName, st.encode(nil)) }

// preUpgrade ends the name of the copy that an upgrade leaves, with the old format.
const preUpgrade = ".pre-upgrade-"

// preserve leaves a copy of a file of an older format beside it, checked, before it
// is upgraded. One from an earlier upgrade of the same file gives way.
func preserve(ctx context.Context, f *os.File, path string, st *state, o *Options) (kept string, err error) {
	t, err := readTree(f)
	if err != nil {
		return "", err
	}
	if err := room(filepath.Dir(path), int64(t.pages)*t.pageSize); err != nil { //nolint:gosec // less than the file
		return "", fmt.Errorf("bolt: a copy is made before the file is upgraded: %w", err)
	}
	kept, draft := fmt.Sprintf("%s%s%d", path, preUpgrade, st.format), path+draftFile
	if err := rewrite(ctx, f, draft); err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(draft) }() // what stays is swept
	o.at("upgrade: copied")
	again, err := os.Open(draft)
	if err != nil {
		return "", fmt.Errorf("bolt: %w", err)
	}
	defer func() { _ = again.Close() }() // it was read
	if err := o.Check(ctx, again, nil); err != nil {
		return "", fmt.Errorf("bolt: the copy before an upgrade is not what it should be: %w", err)
	}
	o.at("upgrade: checked")
	if err = os.Rename(draft, kept); err == nil {
		err = dirSync(filepath.Dir(path))
	}
	if err != nil {
		return "", fmt.Errorf("bolt: naming the copy before an upgrade: %w", err)
	}
	o.at("upgrade: kept")
	return kept, nil
}

// upgrade makes a file one of the present format, in one transaction.
func upgrade(db *bbolt.DB, st state, o *Options) (state, error) {
	fresh := newState()
	st.format, st.least, st.id = fresh.format, fresh.least, fresh.id
	err := guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error { return writeState(tx.Bucket(metaBucket), st) })
	})
	if err != nil {
		return st, fmt.Errorf("bolt: upgrading the file: %w", err)
	}
	o.at("upgrade: done")
	return st, nil
}
