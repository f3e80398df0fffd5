//go:build linux && system

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/campaign"
)

const (
	fullClients  = 64   // that create, or end, at one time
	leastEnds    = 1000 // that must succeed while the disk is full
	refusalBound = 100 * time.Millisecond
	resumeBound  = 5 * time.Second

	lateRefusals = "refusals later than 100 ms" // or than three times what the machine takes for nothing
)

// A disk that fills up costs nobody his session: what was acknowledged stays so,
// all tokens are validated, a thousand sessions and more can be ended, and are dead
// after a kill -9 on the full disk too; log-ins go on by themselves once there is
// room.
func TestSystemCampaignFull(t *testing.T) {
	disks := []struct {
		name   string
		mount  func(t *testing.T) string
		filler int64 // bytes of somebody else, who removes them in the end
	}{
		{"tmpfs", func(t *testing.T) string { return mounted(t, "-t", "tmpfs", "-o", "size=8m", "tmpfs") }, 4 << 20},
		{"ext4", func(t *testing.T) string { return mounted(t, "-o", "loop", ext4(t, 24<<20)) }, 12 << 20},
	}
	campaign.Run(t, campaign.Plan{
		Name: "full disk", Trials: 50, Few: 4,
		About: "fill a disk of 8 MiB (tmpfs) or 24 MiB (ext4) by log-ins, end 1,000 sessions, kill -9, start on the full disk, make room",
		Must:  []string{"acknowledged creates lost", "acknowledged ends lost", "wrong validations", "ends refused", lateRefusals},
	}, func(r *campaign.Trial) {
		t, disk := r.T, disks[r.N%len(disks)]
		dir := disk.mount(t)
		filler := filepath.Join(dir, "filler")
		if err := takeSpace(filler, disk.filler); err != nil {
			t.Fatal(err)
		}
		h := newHome(t, services(nil))
		h.data = filepath.Join(dir, "data")
		f := &fullDisk{r: r, p: h.start(t)}
		f.staff = hire(t, f.p)

		calm, _ := f.validating(func() { f.fill() })
		busy, machine := f.validating(func() { f.refused(200); f.end(leastEnds) })
		if bound := max(calm*3/2, calm+10*time.Millisecond, 2*machine); busy > bound {
			t.Errorf("%s: validate p99 %v while the disk is full, want at most %v: it was %v", disk.name, busy, bound, calm)
		}
		late := 0
		for _, took := range f.refusals {
			late += oneIf(took > max(refusalBound, 3*machine))
		}
		r.Count(lateRefusals, late)
		rest := fillRest(t, dir, 0) // what the ends have left of the ballast, or the next start is on no full disk
		f.p.kill()
		verified(t, h)
		f.p = h.launch(t)
		f.p.url = <-f.p.output.address
		f.ready(http.StatusServiceUnavailable)
		f.check()
		f.refused(5)
		if err := errors.Join(os.Remove(filler), os.Remove(rest)); err != nil {
			t.Fatal(err)
		}
		f.resume()
		f.check()
		f.ready(http.StatusOK)
		if code, _ := f.p.terminate(); code != 0 {
			t.Errorf("exit code %d, want 0:\n%s", code, f.p.output)
		}
		verified(t, h)
		r.Count("creates", len(f.living)+len(f.dead))
		r.Count("ends while full", len(f.dead))
		r.Most("µs of validate p99 while full", busy.Microseconds())
		t.Logf("%s: %d creates, %d ends while full; validate p99 %v, then %v", disk.name, len(f.living)+len(f.dead), len(f.dead), calm, busy)
	})
}

// fullDisk is a server whose disk is filled, and what its clients know.
type fullDisk struct {
	r     *campaign.Trial
	p     *process
	staff staff

	mu           sync.Mutex
	living, dead []credential
	refusals     []time.Duration
}

// each lets clients work, each until work says that it is done.
func (f *fullDisk) each(token string, work func(c *client) (done bool)) {
	var group sync.WaitGroup
	for range fullClients {
		group.Go(func() {
			c := newClient(f.p, token)
			defer c.close()
			for !work(c) {
			}
		})
	}
	group.Wait()
}

func (f *fullDisk) create(c *client) error {
	var made credential
	err := c.call(f.r.T.Context(), "createSession", params{"realm": "app", "username": "somebody"}, &made)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.living = append(f.living, made)
	}
	return err
}

// fill creates sessions until the disk is full.
func (f *fullDisk) fill() {
	f.each(f.staff.issuerKey.AuthToken, func(c *client) bool {
		err := f.create(c)
		if err != nil && codeOf(err) != storageFull {
			f.r.T.Errorf("createSession: %v", err)
		}
		return err != nil
	})
	if len(f.living) < 2*leastEnds {
		f.r.T.Fatalf("only %d sessions fit:\n%s", len(f.living), f.p.output)
	}
}

// refused asks for sessions, and is to be told each time that the disk is full.
func (f *fullDisk) refused(times int64) {
	var asked atomic.Int64
	f.each(f.staff.issuerKey.AuthToken, func(c *client) bool {
		if asked.Add(1) > times {
			return true
		}
		begun := time.Now()
		if err := f.create(c); codeOf(err) != storageFull {
			f.r.T.Errorf("createSession on a full disk: %v, want %d", err, storageFull)
		}
		took := time.Since(begun)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.refusals = append(f.refusals, took)
		return false
	})
}

// end ends sessions by their own tokens, some by their handles.
func (f *fullDisk) end(n int) {
	some := f.living[:n]
	f.living = slices.Clone(f.living[n:])
	var next, refusals atomic.Int64
	f.each(f.staff.admin.AuthToken, func(admin *client) bool {
		at := int(next.Add(1)) - 1
		if at >= n {
			return true
		}
		c, p := *admin, params{"sessionHandles": []string{some[at].SessionHandle}}
		action := "revokeSessions"
		if at%4 != 0 {
			action, p, c.token = "deleteSession", nil, some[at].AuthToken
		}
		err := c.call(f.r.T.Context(), action, p, nil)
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil {
			refusals.Add(1)
			f.r.T.Logf("end %d: %v", at, err)
			return false
		}
		f.dead = append(f.dead, some[at])
		return false
	})
	f.r.Count("ends refused", int(refusals.Load()))
}

// validating lets one client validate a session that lives beside some work, and
// returns the 99th percentile of how long that took, and of how long the machine took
// for nothing meanwhile: others may use it too.
func (f *fullDisk) validating(work func()) (p99, machine time.Duration) {
	ctx, cancel := context.WithCancel(f.r.T.Context())
	var took, nothing []time.Duration
	wrong := 0
	var group sync.WaitGroup
	group.Go(func() {
		c := newClient(f.p, f.staff.admin.AuthToken)
		defer c.close()
		for ctx.Err() == nil {
			var decided struct{ Valid bool }
			begun := time.Now()
			if err := c.call(context.WithoutCancel(ctx), "validate", params{"tokenId": f.staff.issuerKey.AuthToken}, &decided); err != nil || !decided.Valid {
				wrong++
			}
			took = append(took, time.Since(begun))
			begun = time.Now()
			f.status(c.http, "/healthz", http.StatusOK)
			nothing = append(nothing, time.Since(begun))
			pause(f.r.T, time.Millisecond) // which leaves the others some of the machine
		}
	})
	work()
	cancel()
	group.Wait()
	f.r.Count("wrong validations", wrong)
	f.r.Count("validations", len(took))
	return quantile(took, 0.99), quantile(nothing, 0.99)
}

// check compares all that was acknowledged with what the server says.
func (f *fullDisk) check() {
	c := newClient(f.p, f.staff.admin.AuthToken)
	defer c.close()
	for _, of := range []struct {
		figure string
		some   []credential
		valid  bool
	}{{"acknowledged creates lost", f.living, true}, {"acknowledged ends lost", f.dead, false}} {
		wrong := 0
		for some := range slices.Chunk(of.some, validatedAtOnce) {
			var tokens []string
			for _, s := range some {
				tokens = append(tokens, s.AuthToken)
			}
			var decided struct{ Results []struct{ Valid bool } }
			c.must(f.r.T, "validate", params{"tokenIds": tokens, "refresh": false}, &decided)
			for _, d := range decided.Results {
				if d.Valid != of.valid {
					wrong++
				}
			}
		}
		f.r.Count(of.figure, wrong)
	}
}

// resume waits until a session can be created again.
func (f *fullDisk) resume() {
	c := newClient(f.p, f.staff.issuerKey.AuthToken)
	defer c.close()
	begun := time.Now()
	err := f.create(c)
	for codeOf(err) == storageFull && time.Since(begun) < 2*resumeBound {
		pause(f.r.T, 20*time.Millisecond)
		err = f.create(c)
	}
	took := time.Since(begun)
	if err != nil || took > resumeBound {
		f.r.T.Errorf("createSession %v after there was room: %v, want it within %v\n%s", took, err, resumeBound, f.p.output)
	}
	f.r.Most("ms until creates go on", took.Milliseconds())
}

// ready fails unless /readyz answers with a status.
func (f *fullDisk) ready(want int) { f.status(http.DefaultClient, "/readyz", want) }

func (f *fullDisk) status(c *http.Client, path string, want int) {
	request, err := http.NewRequestWithContext(context.WithoutCancel(f.r.T.Context()), http.MethodGet, f.p.url+path, http.NoBody)
	if err != nil {
		f.r.T.Error(err)
		return
	}
	response, err := c.Do(request)
	if err != nil {
		f.r.T.Error(err)
		return
	}
	if _ = response.Body.Close(); response.StatusCode != want {
		f.r.T.Errorf("%s: %d, want %d", path, response.StatusCode, want)
	}
}

// mounted mounts something on a folder until the test ends.
func mounted(t *testing.T, args ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	run := func(ctx context.Context, name string, args ...string) {
		if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
			t.Errorf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	run(t.Context(), "mount", append(args, dir)...)
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { run(context.WithoutCancel(t.Context()), "umount", dir) })
	return dir
}

// ext4 makes a file of so many bytes, in memory, that holds an empty file system.
func ext4(t *testing.T, size int64) (path string) {
	t.Helper()
	path = filepath.Join(mounted(t, "-t", "tmpfs", "tmpfs"), "disk")
	if err := takeSpace(path, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	return path
}

// takeSpace makes a file that takes up so many bytes.
func takeSpace(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// fillRest takes up all but so many bytes of a file system.
func fillRest(t *testing.T, dir string, left int64) (filler string) {
	t.Helper()
	filler = filepath.Join(dir, fmt.Sprint("all-but-", left))
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if n := int64(fs.Bavail)*fs.Bsize - left; n > 0 {
		if err := takeSpace(filler, n); err != nil && !errors.Is(err, syscall.ENOSPC) { // ext4 keeps some for itself
			t.Fatal(err)
		}
		return filler
	}
	if err := os.WriteFile(filler, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return filler
}
