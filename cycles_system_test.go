//go:build linux && system

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"sessiond/internal/campaign"
	"sessiond/internal/cli"
	"sessiond/store/bolt"
)

// cycles are trials on one server: clients load it, it comes to a sudden end, and
// what it finds when it is started again is compared with their ledger.
type cycles struct {
	t    *testing.T                           // of all trials
	home func(r *campaign.Trial) home         // on ground with nothing on it
	end  func(r *campaign.Trial, kill func()) // makes the ground what it is after the end; in between it calls kill

	h home
	p *process
	l *ledger
}

const (
	cyclesOfHome = 20 // then another one, since all that ever lived is looked at each time
	unopened     = "files that do not open"
	openWithin   = 2 * time.Second
	startWithin  = 20 * time.Second
)

// cycleMust are the figures that cycles make wrong by counting one.
func cycleMust() []string {
	return []string{lostCreates, lostEnds, aliveTokens, strangers, deadTokens, lostChanges, tornEnds, unopened}
}

func (c *cycles) trial(r *campaign.Trial) {
	if c.l == nil || r.N%cyclesOfHome == 0 {
		c.begin(r)
	}
	defer c.count(r)
	c.l.load(r.T, c.p, shortestRun+rand.N(longestRun-shortestRun), func() { c.end(r, c.p.kill) })
	whole(r, c.h)
	if rand.N(secondCrashOneIn) == 0 {
		again := c.h.launch(c.t)
		pause(r.T, rand.N(secondCrashWithin))
		c.end(r, again.kill)
		whole(r, c.h)
	}
	c.p = opened(r, c.t, c.h)
	r.Most("ms until ready", c.p.ready.Milliseconds())
	c.l.check(r.T, c.p)
	c.l.fill(r.T, c.p)
	c.l.makeRoom(r.T, c.p)
}

// begin starts a server on new ground.
func (c *cycles) begin(r *campaign.Trial) {
	if c.p != nil {
		c.p.kill()
	}
	c.p, c.l = nil, nil
	c.h = c.home(r)
	c.p = opened(r, c.t, c.h)
	c.l = newLedger(hire(r.T, c.p))
	c.l.enlist(r.T, c.p)
}

// opened starts a server that has to start. It lives as long as the test t.
func opened(r *campaign.Trial, t *testing.T, h home) *process {
	t.Helper()
	p := begin(r, t, h)
	if p == nil {
		r.Count(unopened, 1)
		r.T.FailNow()
	}
	return p
}

// begin starts a server, and returns nil if it ends instead.
func begin(r *campaign.Trial, t *testing.T, h home) *process {
	t.Helper()
	begun := time.Now()
	p := h.launch(t)
	select {
	case p.url = <-p.output.address: // it is ready
		p.ready = time.Since(begun)
		return p
	case <-p.exited:
		r.T.Logf("the server did not start:\n%s", p.output)
		r.Count("starts that failed", 1)
	case <-time.After(startWithin):
		r.T.Fatalf("the server neither started nor ended within %v:\n%s", startWithin, p.output)
	}
	return nil
}

// count hands over what the ledger has counted since the last time.
func (c *cycles) count(r *campaign.Trial) {
	l := c.l
	for figure, n := range l.figures {
		r.Count(figure, n)
	}
	r.Count("acknowledged creates", l.creates)
	r.Count("acknowledged ends", l.ends)
	r.Count("other acknowledged changes", l.changes)
	r.Count("validations", int(l.validations.Swap(0)))
	r.Count("creates and ends under way", l.openCreates+l.openEnds)
	clear(l.figures)
	l.creates, l.ends, l.changes, l.openCreates, l.openEnds = 0, 0, 0, 0, 0
	if r.T.Failed() {
		r.T.Logf("the server says\n%s", c.p.output)
		c.l = nil // the next trial begins anew
	}
}

// whole ends the trial unless the file of a server that does not run is whole.
func whole(r *campaign.Trial, h home) {
	r.T.Helper()
	if _, err := bolt.Verify(r.T.Context(), filepath.Join(h.data, cli.DataFile), nil); err != nil {
		r.Count(unopened, 1)
		r.T.Fatalf("verify: %v", err)
	}
}

// at is a home in a folder.
func (h home) at(folder string) home {
	h.data = filepath.Join(folder, "data")
	return h
}

// disk is an ext4 file system in a file that is held in memory.
type disk struct {
	t        *testing.T
	file, at string
}

// memory mounts some MiB of it at a folder.
func memory(t *testing.T, size int64) string {
	t.Helper()
	at := t.TempDir()
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Fatalf("mounting memory for a disk (it needs root): %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) })
	return at
}

// newDisk makes a file system of some MiB and mounts it.
func newDisk(t *testing.T, size int64, options ...string) *disk {
	t.Helper()
	d := &disk{t: t, file: filepath.Join(memory(t, size+8), "disk"), at: t.TempDir()}
	t.Cleanup(d.unmount)
	if err := os.WriteFile(d.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.file, size<<20); err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", "-F", "-J", "size=8", d.file)
	d.mount(options...)
	return d
}

func (d *disk) mount(options ...string) {
	d.t.Helper()
	d.run("mount", "-t", "ext4", "-o", strings.Join(append([]string{"loop", "noatime"}, options...), ","), d.file, d.at)
}

// unmount takes the file system away. A second time it does nothing.
func (d *disk) unmount() { _ = syscall.Unmount(d.at, syscall.MNT_DETACH) }

// leave unmounts the file system once nobody uses it any more: who holds what is on it
// would be given the same again by the next mount, cut or not. What a server has
// started outlives a kill for a moment only.
func (d *disk) leave() {
	d.t.Helper()
	const soon = 5 * time.Second
	for begun := time.Now(); ; pause(d.t, time.Millisecond) {
		err := syscall.Unmount(d.at, 0)
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EBUSY) || time.Since(begun) > soon {
			d.t.Fatalf("unmounting %s: %v; it is held by %q", d.at, err, holding(d.at))
		}
	}
}

// holding returns the command lines of those who have something in a folder open.
func holding(folder string) (commands []string) {
	open, _ := filepath.Glob("/proc/[0-9]*/fd/*") // none of the pattern is malformed
	for _, fd := range open {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, folder) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(fd), "../cmdline")) // it may be gone
			commands = append(commands, string(command))
		}
	}
	return commands
}

func (d *disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.CommandContext(d.t.Context(), name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v: %s", strings.Join(append([]string{name}, args...), " "), err, out)
	}
}

// cut makes every later call fail and drops what was not flushed, the journal
// included.
func (d *disk) cut() {
	d.t.Helper()
	const shutdown, noLogFlush = 0x8004587d, uint32(2) // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	f, err := os.Open(d.at)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	flag := noLogFlush
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&flag))); errno != 0 {
		d.t.Fatalf("shutting the file system down: %v", errno)
	}
}

// Kill -9 under load, on ext4.
func TestSystemCampaignCrash(t *testing.T) {
	c := &cycles{t: t, end: func(_ *campaign.Trial, kill func()) { kill() }}
	c.home = func(*campaign.Trial) home { return newHome(t, crowded()).at(newDisk(t, 96).at) }
	campaign.Run(t, campaign.Plan{
		Name: "kill -9 under load", Trials: 500, Few: 20, Must: slices.Concat(cycleMust(), []string{late}),
		About: "a server with 16 clients on ext4 killed after 50 to 500 ms, in one of five once more while it starts",
	}, func(r *campaign.Trial) {
		c.trial(r)
		if c.p.ready > openWithin {
			r.Count(late, 1)
		}
	})
}

const late = "starts of more than 2 s"

// Power cuts under load, on ext4: what the kernel has not written is gone.
func TestSystemCampaignPower(t *testing.T) {
	var d *disk
	c := &cycles{t: t}
	c.home = func(*campaign.Trial) home {
		if d != nil {
			d.unmount()
		}
		d = newDisk(t, 96)
		return newHome(t, crowded()).at(d.at)
	}
	c.end = func(r *campaign.Trial, kill func()) {
		d.cut()
		kill()
		d.leave()
		if rand.N(2) == 0 {
			d.mount("commit=1000") // seconds for which nothing is written unasked
			r.Count("mounts with commit=1000", 1)
		} else {
			d.mount()
		}
	}
	campaign.Run(t, campaign.Plan{
		Name: "power cut under load, ext4", Trials: 300, Few: 10, Must: cycleMust(),
		About: "EXT4_IOC_SHUTDOWN without flushing the journal below a server with 16 clients, kill, mount, start",
	}, c.trial)
}
