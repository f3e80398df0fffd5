//go:build linux && system

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sessiond/internal/cli"
	"sessiond/internal/faultfs"
	"sessiond/store"
	"sessiond/store/bolt"
)

// Who checks the file for a server that starts ends when that is killed, and does not
// go on to the end of the file.
func TestSystemTheCheckWorkerEndsWithItsServer(t *testing.T) {
	const (
		mebibytes = 32
		aRead     = 200 * time.Millisecond // of what the system reads at a time, 1 MiB at the most
		soon      = 3 * time.Second        // half of what the rest takes
	)
	backing := memory(t, 128)
	h := newHome(t, roomy()).at(backing)
	if err := os.Mkdir(h.data, 0o700); err != nil {
		t.Fatal(err)
	}
	st, err := bolt.Open(t.Context(), filepath.Join(h.data, cli.DataFile), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range mebibytes {
		if _, err := st.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: fmt.Sprintf("x/%d", n), Value: bytes.Repeat([]byte{1}, 1<<20)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	f := faultfs.Mount(t, backing, at)
	f.Delay(faultfs.Read, aRead)
	p := h.at(at).launch(t)
	var workers []int
	for begun := time.Now(); len(workers) == 0; pause(t, time.Millisecond) {
		if time.Since(begun) > startWithin {
			t.Fatalf("nobody checks the file:\n%s", p.output)
		}
		workers = childrenOf(t, p.cmd.Process.Pid)
	}
	pause(t, 3*aRead) // it reads
	if got := running(t, workers); len(got) == 0 {
		t.Fatalf("the check is over already:\n%s", p.output)
	}
	p.kill()
	awaitGone(t, workers, soon)
	f.Unmount()
}
