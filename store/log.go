package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
)

// AnchorKey is where purging keeps the head of what it took out of the log:
// the encoded Head of the last entry that is gone. VerifyLog starts there.
const AnchorKey = "anchor/log"

// Entry is an entry of the log. Positions start at 1 and grow by one in commit
// order, but where a copy took the place of a store that had given others since:
// there they go on beyond all that were ever given. Hash is SHA-256 over the
// previous entry's hash (32 zero bytes before the first), the position (8 bytes,
// big-endian) and the data, so that nothing can be missing in between.
type Entry struct {
	Seq  uint64
	Hash [32]byte
	Data []byte
}

// Head is the end of a log: the position and the hash of its last entry. The
// zero Head is that of an empty log.
type Head struct {
	Seq  uint64
	Hash [32]byte
}

// Next returns the head of the log once data was appended to it.
func (h Head) Next(data []byte) Head {
	buf := make([]byte, 0, 1024) // on the stack, and events fit into it
	buf = append(buf, h.Hash[:]...)
	buf = binary.BigEndian.AppendUint64(buf, h.Seq+1)
	buf = append(buf, data...)
	return Head{Seq: h.Seq + 1, Hash: sha256.Sum256(buf)}
}

// String returns h as people note it, SEQ:HEX.
func (h Head) String() string {
	return strconv.FormatUint(h.Seq, 10) + ":" + hex.EncodeToString(h.Hash[:])
}

const headFormat = 1

// Encode returns h as the value that DecodeHead reads.
func (h Head) Encode() []byte {
	b := make([]byte, 0, 1+8+len(h.Hash))
	b = append(b, headFormat)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	return append(b, h.Hash[:]...)
}

// DecodeHead reads what Encode wrote; anything else is ErrCorrupt.
func DecodeHead(b []byte) (Head, error) {
	var h Head
	if len(b) != 1+8+len(h.Hash) || b[0] != headFormat {
		return Head{}, fmt.Errorf("%w: not the head of a log", ErrCorrupt)
	}
	h.Seq = binary.BigEndian.Uint64(b[1:])
	copy(h.Hash[:], b[9:])
	return h, nil
}

// LogKey returns the key of the entry at position seq: keys sort by position.
func LogKey(seq uint64) string {
	var b [len(logKind) + 1 + 8]byte
	copy(b[:], logKind+"/")
	binary.BigEndian.PutUint64(b[len(logKind)+1:], seq)
	return string(b[:])
}

// ParseLogKey returns the position that a key of LogKey names.
func ParseLogKey(key string) (seq uint64, ok bool) {
	const prefix = logKind + "/"
	if len(key) != len(prefix)+8 || key[:len(prefix)] != prefix {
		return 0, false
	}
	for i := len(prefix); i < len(key); i++ {
		seq = seq<<8 | uint64(key[i])
	}
	return seq, true
}

// AppendEntry appends to dst the value that a backend stores for an entry, its
// hash and its data, and returns the longer slice.
func AppendEntry(dst []byte, hash [32]byte, data []byte) []byte {
	return append(append(dst, hash[:]...), data...)
}

// DecodeEntry reads the entry that is stored as item. Its data is a part of the
// item's value. What is no entry is ErrCorrupt.
func DecodeEntry(item Item) (Entry, error) {
	var e Entry
	seq, ok := ParseLogKey(item.Key)
	if !ok || len(item.Value) < len(e.Hash) {
		return Entry{}, fmt.Errorf("%w: not an entry of the log", ErrCorrupt)
	}
	e.Seq = seq
	e.Data = item.Value[copy(e.Hash[:], item.Value):]
	return e, nil
}

// ReadLog returns up to limit entries beyond position after, oldest first; with
// limit 0 up to 1,000. None means that there are no more yet.
func ReadLog(ctx context.Context, s Store, after uint64, limit int) ([]Entry, error) {
	return readLog(ctx, s, Range{Prefix: logKind + "/", After: LogKey(after), Limit: limit})
}

// ReadLogBack returns up to limit entries before position before, newest first;
// with before 0 from the newest of all, with limit 0 up to 1,000.
func ReadLogBack(ctx context.Context, s Store, before uint64, limit int) ([]Entry, error) {
	r := Range{Prefix: logKind + "/", Limit: limit, Reverse: true}
	if before > 0 {
		r.After = LogKey(before)
	}
	return readLog(ctx, s, r)
}

func readLog(ctx context.Context, s Store, r Range) ([]Entry, error) {
	items, err := s.List(ctx, r)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(items))
	for i := range items {
		if entries[i], err = DecodeEntry(items[i]); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// VerifyLog walks the log from the anchor, the zero Head for all of it, and
// returns the head that it reached. Where the chain breaks (an entry is
// missing, changed or out of place) it returns the last good head and an error
// that wraps ErrCorrupt and names the position. It tells step, if not nil, how
// many entries it has seen so far, once a page. What is cut off the end shows
// only in comparison with a head that was noted elsewhere.
func VerifyLog(ctx context.Context, s Store, anchor Head, step func(n uint64)) (Head, error) {
	head, seen := anchor, uint64(0)
	for {
		entries, err := ReadLog(ctx, s, head.Seq, 0)
		if err != nil {
			return head, fmt.Errorf("log after position %d: %w", head.Seq, err)
		}
		if len(entries) == 0 {
			return head, nil
		}
		for i := range entries {
			next := Head{Seq: entries[i].Seq - 1, Hash: head.Hash}.Next(entries[i].Data)
			switch {
			case entries[i].Hash == next.Hash:
			case next.Seq != head.Seq+1:
				return head, fmt.Errorf("%w: log: position %d is missing", ErrCorrupt, head.Seq+1)
			default:
				return head, fmt.Errorf("%w: log: the chain breaks at position %d", ErrCorrupt, next.Seq)
			}
			head = next
			seen++
		}
		if step != nil {
			step(seen)
		}
	}
}
