package storetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"sessiond/store"
)

func (s *suite) log() {
	start := s.head()
	s.equal("position after the fill", start.Seq, uint64(30))
	want := []store.Entry{}
	prev := start.Hash
	for i := range 12 {
		var tx store.Tx
		for j := range i % 4 { // none, one, and several at once
			data := fmt.Appendf(nil, "entry %d of commit %d", j, i)
			tx.Append = append(tx.Append, data)
			seq := start.Seq + uint64(len(want)) + 1
			sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(prev[:], seq), data...))
			want = append(want, store.Entry{Seq: seq, Hash: sum, Data: data})
			prev = sum
		}
		tx.Put = put("a/1", fmt.Sprint(i))
		s.commit(tx)
		s.refused(store.Tx{If: at("a/1", 0), Append: [][]byte{[]byte("refused")}}, store.ErrConflict)
	}
	got, err := store.ReadLog(s.ctx, s.s, start.Seq, 0)
	if err != nil {
		s.Fatal(err)
	}
	s.equal("entries", got, want)
	last := want[len(want)-1]
	s.equal("head", s.head(), store.Head{Seq: last.Seq, Hash: last.Hash})
}

func (s *suite) logPages() {
	seqs := func(entries []store.Entry, err error) []uint64 {
		s.Helper()
		if err != nil {
			s.Fatal(err)
		}
		seqs := []uint64{}
		for _, e := range entries {
			seqs = append(seqs, e.Seq)
			s.equal("data", string(e.Data), fmt.Sprintf("filler %d", e.Seq-1))
		}
		return seqs
	}
	s.equal("from the start", seqs(store.ReadLog(s.ctx, s.s, 0, 3)), []uint64{1, 2, 3})
	s.equal("after a position", seqs(store.ReadLog(s.ctx, s.s, 28, 5)), []uint64{29, 30})
	s.equal("after the end", seqs(store.ReadLog(s.ctx, s.s, 30, 5)), []uint64{})
	s.equal("newest first", seqs(store.ReadLogBack(s.ctx, s.s, 0, 3)), []uint64{30, 29, 28})
	s.equal("before a position", seqs(store.ReadLogBack(s.ctx, s.s, 3, 5)), []uint64{2, 1})
	s.equal("before the start", seqs(store.ReadLogBack(s.ctx, s.s, 1, 5)), []uint64{})
}

func (s *suite) logPurge() {
	entries, err := store.ReadLog(s.ctx, s.s, 0, 10)
	if err != nil {
		s.Fatal(err)
	}
	last := entries[len(entries)-1]
	anchor := store.Head{Seq: last.Seq, Hash: last.Hash}
	tx := store.Tx{Put: []store.Put{{Key: store.AnchorKey, Value: anchor.Encode()}}}
	for _, e := range entries {
		tx.Delete = append(tx.Delete, store.LogKey(e.Seq))
	}
	head := s.head()
	s.commit(tx)
	if _, err := store.VerifyLog(s.ctx, s.s, store.Head{}, nil); !errors.Is(err, store.ErrCorrupt) {
		s.Fatalf("a purged log without its anchor: %v, want ErrCorrupt", err)
	}
	kept, err := store.DecodeHead(s.get(store.AnchorKey).Value)
	if err != nil {
		s.Fatal(err)
	}
	got, err := store.VerifyLog(s.ctx, s.s, kept, nil)
	if err != nil {
		s.Fatal(err)
	}
	s.equal("head from the anchor", got, head)
	s.commit(store.Tx{Append: [][]byte{[]byte("goes on")}})
	next, err := store.ReadLogBack(s.ctx, s.s, 0, 1)
	if err != nil {
		s.Fatal(err)
	}
	s.equal("next position", next[0].Seq, head.Seq+1)
	// All of it gone: positions still go on.
	rest, err := store.ReadLog(s.ctx, s.s, kept.Seq, 0)
	if err != nil {
		s.Fatal(err)
	}
	last = rest[len(rest)-1]
	tx = store.Tx{Put: []store.Put{{Key: store.AnchorKey, Value: store.Head{Seq: last.Seq, Hash: last.Hash}.Encode()}}}
	for _, e := range rest {
		tx.Delete = append(tx.Delete, store.LogKey(e.Seq))
	}
	s.commit(tx)
	s.equal("what is left", len(s.list(store.Range{Prefix: "log/"})), 0)
	s.commit(store.Tx{Append: [][]byte{[]byte("and on")}})
	next, err = store.ReadLogBack(s.ctx, s.s, 0, 1)
	if err != nil {
		s.Fatal(err)
	}
	s.equal("next position", next[0].Seq, head.Seq+2)
	if !bytes.Equal(next[0].Data, []byte("and on")) {
		s.Fatalf("entry %q", next[0].Data)
	}
}
