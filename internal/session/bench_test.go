package session_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
)

// Whoever is asked a hundred thousand times a second makes no garbage.
func TestTheHotPathDoesNotAllocate(t *testing.T) {
	w := newWorld(t, unlimited())
	_, token := w.issued("ann", idle(3600))
	junk, dst := token[:63]+"-", make([]byte, 0, 1024)
	for name, call := range map[string]func(){
		"Authenticate": func() { w.Authenticate(token, false) },
		"with a touch": func() {
			w.advance(1)
			w.Authenticate(token, true)
		},
		"Check":   func() { _, dst, _ = w.Check(w.unix(), token, true, dst[:0]) },
		"refused": func() { w.Authenticate(junk, true) },
	} {
		call()
		if n := testing.AllocsPerRun(1000, call); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// The path of validate, over tables of three sizes: one token again and again, or
// any of them. None of it may allocate.
func BenchmarkCheck(b *testing.B) {
	for _, size := range []int{1, 100_000, 1_000_000} {
		w := newWorld(b, unlimited())
		tokens := w.fill(size)
		now := w.unix()
		b.Run(fmt.Sprintf("Authenticate/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			random := rand.NewPCG(1, 2)
			for b.Loop() {
				if _, ok := w.Authenticate(tokens[random.Uint64()%uint64(size)], true); !ok {
					b.Fatal("refused")
				}
			}
		})
		b.Run(fmt.Sprintf("Check/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			random := rand.NewPCG(1, 2)
			var dst []byte
			for b.Loop() {
				var ok bool
				if _, dst, ok = w.Check(now, tokens[random.Uint64()%uint64(size)], true, dst[:0]); !ok {
					b.Fatal("refused")
				}
			}
		})
		b.Run(fmt.Sprintf("Parallel/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				random := rand.NewPCG(1, rand.Uint64())
				var dst []byte
				for pb.Next() {
					_, dst, _ = w.Check(now, tokens[random.Uint64()%uint64(size)], true, dst[:0])
				}
			})
		})
		w.Close()
	}
}

// Refusals: of junk, which costs a checksum, and of what is well made but unknown.
func BenchmarkRefuse(b *testing.B) {
	w := newWorld(b, unlimited())
	w.fill(1000)
	for name, token := range map[string]string{"junk": "sdses_" + strings.Repeat("x", 58), "unknown": checked("sdses_", handleOfVectors)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if w.lives(token) {
					b.Fatal("accepted")
				}
			}
		})
	}
}

// What a commit that creates a session costs the one who feeds the table.
func BenchmarkApplyCreate(b *testing.B) {
	const size = 100_000
	w := newWorld(b, unlimited())
	a := w.account("alice")
	changes := make([]store.Change, size)
	var removal store.Change
	for i := range changes {
		r, _ := stored(i, a)
		changes[i] = store.Change{Put: []store.Item{{Key: session.LiveKey(r.Handle), Value: r.Encode()}}}
		removal.Delete = append(removal.Delete, session.LiveKey(r.Handle))
	}
	table := w.Table()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%size == 0 {
			b.StopTimer()
			if err := table.Apply(removal); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		if err := table.Apply(changes[i%size]); err != nil {
			b.Fatal(err)
		}
	}
}

// The whole of a create but the disk.
func BenchmarkIssue(b *testing.B) {
	w := newWorld(b, unlimited())
	b.ReportAllocs()
	for b.Loop() {
		w.issued("ann")
	}
}

// How long a process takes to know its sessions, per 100,000.
func BenchmarkLoad(b *testing.B) {
	const size = 100_000
	w := newWorld(b, unlimited())
	w.store100(size)
	b.ReportAllocs()
	for b.Loop() {
		if err := session.NewTable(session.Builtin()).Load(b.Context(), w.inner, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/100k")
}

// The memory that a session takes once it is in the table: of the heap, and of all
// that the process has, the heap included. Each session has an address of its own.
func BenchmarkTableMemory(b *testing.B) {
	const size = 1_000_000
	for b.Loop() {
		heap, anonymous := memory(b)
		table := session.NewTable(session.Builtin())
		table.SetRealms(realms())
		a := &account.Account{ID: api.NewID(morning, [10]byte{1}), Realm: "web", Username: "ann", Rev: 1}
		for i := range size {
			if i%50 == 0 { // each account has fifty sessions
				a = &account.Account{ID: api.NewID(morning, [10]byte{2: byte(i >> 16), 3: byte(i >> 8), 4: byte(i)}), Realm: "web", Username: "user-" + strconv.Itoa(i), Rev: 1}
			}
			r, _ := stored(i, a)
			table.Insert(r, a)
		}
		heapAfter, anonymousAfter := memory(b)
		b.ReportMetric(float64(heapAfter-heap)/size, "heap-B/session")
		b.ReportMetric(float64(anonymousAfter-anonymous)/size, "anon-B/session")
		runtime.KeepAlive(table)
	}
}

// memory returns the bytes of the live heap and of anonymous memory.
func memory(b *testing.B) (heap, anonymous int64) {
	b.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	rollup, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		b.Skip("this system does not tell")
	}
	for line := range strings.Lines(string(rollup)) {
		if rest, ok := strings.CutPrefix(line, "Anonymous:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			anonymous = kib << 10
		}
	}
	return int64(m.HeapAlloc), anonymous
}

// stored is the i-th of many sessions, with its token.
func stored(i int, a *account.Account) (*session.Record, string) {
	var random [10]byte
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	copy(random[:], sum[:])
	h := api.NewID(morning.Add(time.Duration(i)*time.Millisecond), random)
	secret, _ := session.NewToken("sdses_", h, zeros{}) // which cannot fail
	token := secret.Reveal()
	now := morning.Unix()
	return &session.Record{
		Handle: h, Prefix: "sdses_", Secrets: []session.Secret{{Hash: sha256.Sum256([]byte(token)), Mask: token[len(token)-8:]}},
		AccountID: a.ID, Realm: a.Realm, Username: a.Username, IdleSeconds: 3600,
		Created: now, Authenticated: now, LastAccess: now, Methods: session.ByPassword, Revision: 1,
		Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
	}, token
}

// zeros is randomness that costs nothing.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// fill puts sessions of 1,000 accounts into the table and returns their tokens.
func (w *world) fill(size int) []string {
	w.t.Helper()
	tokens := make([]string, size)
	for i := range tokens {
		k := i % 1000
		a := &account.Account{ID: api.NewID(morning, [10]byte{8: byte(k >> 8), 9: byte(k)}), Realm: "web", Username: "user-" + strconv.Itoa(k), Rev: 1}
		var r *session.Record
		r, tokens[i] = stored(i, a)
		w.Table().Insert(r, a)
	}
	return tokens
}

// store100 commits sessions, a hundred at a time.
func (w *world) store100(size int) {
	w.t.Helper()
	a := w.account("alice")
	for i := 0; i < size; {
		var tx store.Tx
		for range min(store.MaxOps, size-i) {
			r, _ := stored(i, a)
			tx.Put = append(tx.Put, store.Put{Key: session.LiveKey(r.Handle), Value: r.Encode()})
			i++
		}
		if _, err := w.inner.Commit(w.ctx(), tx); err != nil {
			w.t.Fatalf("commit: %v", err)
		}
	}
}
