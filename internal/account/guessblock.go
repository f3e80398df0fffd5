package account

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"sessiond/internal/api"
)

// A block is a byte of format version and then entries: a byte that says of
// what, and its state. Nothing in it is a name that somebody typed: people type
// passwords there.
const (
	blockVersion = 1
	blockEntries = 10_000 // at the most, which is half of store.MaxValueLen

	entryTally byte = iota
	entryName
	entryNetwork
)

// blocks writes the state of the counters that have moved.
func (t *Throttle) blocks(m moves) (all [][]byte) {
	var b []byte
	entries := 0
	next := func(of byte) {
		if entries == blockEntries {
			all = append(all, b)
			b, entries = nil, 0
		}
		if entries == 0 {
			b = append(b, blockVersion)
		}
		b = append(b, of)
		entries++
	}
	for key := range m.tallies {
		next(entryTally)
		b = appendTally(b, key, t.accounts[key])
	}
	for cell := range m.names {
		next(entryName)
		b = appendCounter(binary.BigEndian.AppendUint32(b, cell), t.names.at(cell))
	}
	for cell := range m.networks {
		next(entryNetwork)
		b = binary.BigEndian.AppendUint32(b, cell)
		b = binary.BigEndian.AppendUint64(b, uint64(t.networks[cell])) //nolint:gosec // read back as it was
	}
	if entries > 0 {
		all = append(all, b)
	}
	return all
}

// appendTally writes the counter of an account; one that is gone as its zero.
func appendTally(b []byte, key tallyKey, c *tally) []byte {
	if c == nil {
		c = &tally{}
	}
	b = append(b, key.account[:]...)
	address := key.network.AsSlice()                                                 // of the zero address: empty
	b = append(append(b, byte(len(address))), address...)                            //nolint:gosec // 0, 4 or 16
	b = binary.BigEndian.AppendUint32(b, uint32(min(c.policy.after, math.MaxInt32))) //nolint:gosec // it fits
	b = binary.BigEndian.AppendUint64(b, uint64(c.policy.wait))                      //nolint:gosec // read back as it was
	return appendCounter(b, &c.counter)
}

func appendCounter(b []byte, c *counter) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(c.last)) //nolint:gosec // read back as it was
	b = binary.BigEndian.AppendUint16(b, c.failed)
	b = binary.BigEndian.AppendUint16(b, c.alike)
	return binary.BigEndian.AppendUint16(b, c.network)
}

// replay takes the states of a block over. A time to come is one that a clock
// has written which went wrong: it becomes now, for good.
func (t *Throttle) replay(block []byte, now int64) error {
	if len(block) == 0 || block[0] != blockVersion {
		return errors.New("its format is none that this program knows")
	}
	r := blockReader{rest: block[1:]}
	for len(r.rest) > 0 && !r.short {
		switch of := r.bytes(1)[0]; of {
		case entryTally:
			key, c := r.tally()
			if c.last > now {
				c.last = now
				t.kept.moved.tallies[key] = struct{}{}
			}
			t.accounts[key] = c
		case entryName:
			cell := r.uint32() % nameCells
			c := t.names.at(cell)
			if *c = r.counter(); c.last > now {
				c.last = now
				t.kept.moved.names[cell] = struct{}{}
			}
		case entryNetwork:
			cell := r.uint32() % networkCells
			if t.networks == nil {
				t.networks = make([]int64, networkCells)
			}
			whole := &t.networks[cell]
			if *whole = r.int64(); *whole > now+int64(networkBurst*networkPace) {
				*whole = now + int64(networkBurst*networkPace)
				t.kept.moved.networks[cell] = struct{}{}
			}
		default:
			return fmt.Errorf("an entry of kind %d", of)
		}
	}
	if r.short {
		return errors.New("it ends too early")
	}
	return nil
}

// blockReader reads the values of entries. What is not there reads as zero, and
// short says so.
type blockReader struct {
	rest  []byte
	short bool
}

func (r *blockReader) bytes(n int) []byte {
	if len(r.rest) < n {
		r.short, r.rest = true, nil
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *blockReader) uint16() uint16 { return binary.BigEndian.Uint16(r.bytes(2)) }
func (r *blockReader) uint32() uint32 { return binary.BigEndian.Uint32(r.bytes(4)) }

func (r *blockReader) int64() int64 {
	return int64(binary.BigEndian.Uint64(r.bytes(8))) //nolint:gosec // as it was written
}

func (r *blockReader) tally() (tallyKey, *tally) {
	key := tallyKey{account: api.ID(r.bytes(16))}
	key.network, _ = netip.AddrFromSlice(r.bytes(int(r.bytes(1)[0])))
	c := &tally{policy: policy{after: int(min(r.uint32(), math.MaxInt32)), wait: time.Duration(r.int64())}}
	c.counter = r.counter()
	return key, c
}

func (r *blockReader) counter() counter {
	return counter{last: r.int64(), failed: r.uint16(), alike: r.uint16(), network: r.uint16()}
}
