package bolt

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// BenchmarkCommit is a log-in as the store sees it (three conditions, a record
// of 400 bytes, an event of 200) with so many callers in flight, beside a bare
// bbolt that writes the same bytes with one writer and group commit. Compare
// ops/s within one run.
func BenchmarkCommit(b *testing.B) {
	for _, flight := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("store/%d", flight), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "store.db"))
			defer func() { _ = s.Close() }()
			if _, err := s.Commit(b.Context(), store.Tx{Put: []store.Put{{Key: "epoch/server", Value: []byte("1")}, {Key: "account/one", Value: make([]byte, 100)}}}); err != nil {
				b.Fatal(err)
			}
			var n atomic.Uint64
			inFlight(b, flight, func() {
				key := "session/" + string(timeKey(n.Add(1)))
				_, err := s.Commit(b.Context(), store.Tx{
					If:     []store.Cond{{Key: key}, {Key: "epoch/server", Rev: 1}, {Key: "account/one", Rev: 1}},
					Put:    []store.Put{{Key: key, Value: record[:]}},
					Append: [][]byte{entry[:]},
				})
				if err != nil {
					b.Error(err)
				}
			})
		})
		b.Run(fmt.Sprintf("raw/%d", flight), func(b *testing.B) {
			raw := openRaw(b)
			defer raw.close()
			var n atomic.Uint64
			inFlight(b, flight, func() { raw.commit(timeKey(n.Add(1))) })
		})
	}
}

var (
	record [400]byte
	entry  [200]byte
)

func timeKey(n uint64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, n), "8 random"...)
}

func inFlight(b *testing.B, flight int, commit func()) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	for range flight {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				commit()
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// rawDB is the least that commits in groups: a channel and a writer, no
// conditions, checksums, revisions, chain or watchers.
type rawDB struct {
	b    *testing.B
	db   *bbolt.DB
	in   chan rawRequest
	done chan struct{}
}

type rawRequest struct {
	key  []byte
	done chan struct{}
}

func openRaw(b *testing.B) *rawDB {
	b.Helper()
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "raw.db"), fileMode, &bbolt.Options{
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 30, NoStatistics: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	r := &rawDB{b: b, db: db, in: make(chan rawRequest, 4096), done: make(chan struct{})}
	go r.run()
	return r
}

func (r *rawDB) commit(key []byte) {
	q := rawRequest{key, make(chan struct{})}
	r.in <- q
	<-q.done
}

func (r *rawDB) close() {
	close(r.in)
	<-r.done
	_ = r.db.Close()
}

func (r *rawDB) run() {
	defer close(r.done)
	var seq uint64
	for first := range r.in {
		batch := []rawRequest{first}
		for len(batch) < maxBatch && len(r.in) > 0 {
			batch = append(batch, <-r.in)
		}
		if err := r.db.Update(func(tx *bbolt.Tx) error {
			sessions, err := tx.CreateBucketIfNotExists([]byte("session"))
			if err != nil {
				return err
			}
			log, err := tx.CreateBucketIfNotExists([]byte("log"))
			if err != nil {
				return err
			}
			sessions.FillPercent, log.FillPercent = fill, fill
			for _, q := range batch {
				seq++
				if err := sessions.Put(q.key, record[:]); err != nil {
					return err
				}
				if err := log.Put(binary.BigEndian.AppendUint64(nil, seq), entry[:]); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			r.b.Error(err)
		}
		for _, q := range batch {
			close(q.done)
		}
	}
}
