//go:build linux && bench

package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// measureCreate compares creates over HTTP with a bare bbolt that writes as many
// bytes under keys of the same order.
func measureCreate(t *testing.T, server *child, d *data, r *report) {
	t.Helper()
	raw := startRaw(t, d)
	for _, flight := range []int{1, 64, 256} {
		c := comparison{flight: flight}
		for round := range r.rounds {
			bodies := d.createBodies()
			overHTTP := func() { c.overHTTP = append(c.overHTTP, load(t, server, bodies, flight, r.slice)) }
			bare := func() { c.bare = append(c.bare, raw.run(t, flight, r.slice)) }
			if round%2 == 0 {
				overHTTP()
				bare()
			} else {
				bare()
				overHTTP()
			}
		}
		r.creates = append(r.creates, c)
	}
	server.stop(t)
}

// comparison holds the slices of creates at one number of requests in flight.
type comparison struct {
	flight   int
	overHTTP []slice
	bare     []float64 // commits a second
}

// rawChild is a child with a bare store that is told what to do.
type rawChild struct {
	*child
	in  io.Writer
	out *bufio.Reader
}

func startRaw(t *testing.T, d *data) *rawChild {
	t.Helper()
	cmd := again(t, "raw", filepath.Join(t.TempDir(), "raw.db"), strconv.Itoa(d.recordBytes), strconv.Itoa(d.eventBytes))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &rawChild{launch(t, cmd), in, bufio.NewReader(out)}
}

// run commits for a while and returns how many commits a second were durable.
func (c *rawChild) run(t *testing.T, flight int, d time.Duration) (perSecond float64) {
	t.Helper()
	if _, err := fmt.Fprintln(c.in, flight, d.Nanoseconds()); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(c.out, &perSecond); err != nil {
		t.Fatalf("the bare store: %v\n%s", err, c.tail())
	}
	return perSecond
}

// rawStore is the least that commits in groups: a channel, and one writer that
// drains it. It has no conditions, checksums, revisions or chain.
func rawStore(args []string) error {
	runtime.GOMAXPROCS(2) // as the server does on one core, so that a sync does not stop all
	db, err := bbolt.Open(args[0], 0o600, &bbolt.Options{
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 30, NoStatistics: true,
	})
	if err != nil {
		return err
	}
	record, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	event, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	w := &rawWriter{db: db, in: make(chan rawCommit, 4096), record: make([]byte, record), event: make([]byte, event), failed: make(chan error, 1)}
	go w.run()
	for {
		var flight int
		var d time.Duration
		if _, err := fmt.Scanln(&flight, &d); err != nil {
			return nil //nolint:nilerr // nobody wants anything any more
		}
		perSecond := w.commit(flight, d)
		select {
		case err := <-w.failed:
			return err
		default:
		}
		if _, err := fmt.Fprintln(os.Stdout, perSecond); err != nil {
			return err
		}
	}
}

type rawWriter struct {
	db            *bbolt.DB
	in            chan rawCommit
	record, event []byte
	keys          atomic.Uint64
	failed        chan error
}

type rawCommit struct {
	key  [16]byte
	done chan struct{}
}

// commit has so many callers commit one after the other.
func (w *rawWriter) commit(flight int, d time.Duration) (perSecond float64) {
	begun := time.Now()
	var n atomic.Int64
	var group sync.WaitGroup
	for range flight {
		group.Go(func() {
			c := rawCommit{done: make(chan struct{}, 1)}
			for time.Since(begun) < d {
				binary.BigEndian.PutUint64(c.key[:], w.keys.Add(1))
				w.in <- c
				<-c.done
				n.Add(1)
			}
		})
	}
	group.Wait()
	return float64(n.Load()) / time.Since(begun).Seconds()
}

func (w *rawWriter) run() {
	const maxBatch, fillPercent = 512, 0.9 // as the server's
	var seq uint64
	var batch []rawCommit
	for first := range w.in {
		batch = append(batch[:0], first)
		for len(batch) < maxBatch && len(w.in) > 0 {
			batch = append(batch, <-w.in)
		}
		err := w.db.Update(func(tx *bbolt.Tx) error {
			sessions, err := tx.CreateBucketIfNotExists([]byte("session"))
			if err != nil {
				return err
			}
			log, err := tx.CreateBucketIfNotExists([]byte("log"))
			if err != nil {
				return err
			}
			sessions.FillPercent, log.FillPercent = fillPercent, fillPercent
			for i := range batch {
				if err := sessions.Put(batch[i].key[:], w.record); err != nil {
					return err
				}
				seq++
				if err := log.Put(binary.BigEndian.AppendUint64(nil, seq), w.event); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			select {
			case w.failed <- err:
			default:
			}
		}
		for i := range batch {
			batch[i].done <- struct{}{}
		}
	}
}
