//go:build linux && system

package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/internal/campaign"
	"sessiond/internal/cli"
	"sessiond/store/bolt"
)

const (
	notInBackup     = "acknowledged before a backup and not in it"
	damagedBackups  = "backups that do not verify"
	tokensInBackups = "tokens in a backup"
	lostByCompact   = "acknowledged and lost by a kill while compacting"
	slowByBackup    = "creates more than twice as slow beside a backup"

	writesPerSecond = 1000
	busyClients     = 16
	grownSessions   = 2000
	backupGrace     = 10 * time.Millisecond // of a machine that others use too
)

// A backup under load holds what was acknowledged before it began, and costs those who
// write little; who is killed while he compacts has lost nothing.
func TestSystemCampaignBackup(t *testing.T) {
	campaign.Run(t, campaign.Plan{
		Name: "backup under load", Trials: 20, Few: 2,
		Must: []string{notInBackup, damagedBackups, tokensInBackups, lostByCompact},
		About: fmt.Sprintf("%d clients that create %d sessions a second while a server of %d sessions is backed up, three times; the last backup is served; then kill -9 while it compacts, and a restart",
			busyClients, writesPerSecond, grownSessions),
	}, func(r *campaign.Trial) {
		t := r.T
		h := newHome(t, roomy())
		p := h.start(t)
		staff := hire(t, p)
		admin := newClient(p, staff.admin.AuthToken)
		t.Cleanup(admin.close)
		b := startBusy(t, p, staff)
		for b.count() < grownSessions {
			pause(t, 20*time.Millisecond)
		}

		var calm, beside []time.Duration // of the creates, 99 % of a turn
		var before []string
		var done struct{ State, Name, JobID string }
		for range 3 {
			b.turn()
			pause(t, time.Second)
			calm = append(calm, quantile(b.turn(), 0.99))
			before = b.acknowledged()
			admin.must(t, "backupStore", params{"waitSeconds": 0}, &done)
			begun := time.Now()
			for done.State != "done" {
				admin.must(t, "backupStore", params{"jobId": done.JobID, "waitSeconds": 30}, &done)
			}
			r.Most("ms of a backup", time.Since(begun).Milliseconds())
			pause(t, max(0, time.Second-time.Since(begun)))
			beside = append(beside, quantile(b.turn(), 0.99))
		}
		base, now := quantile(calm, 0.5), quantile(beside, 0.5)
		r.Most("µs of 99 % of the creates", base.Microseconds())
		r.Most("µs of 99 % of the creates beside a backup", now.Microseconds())
		if now > max(2*base, base+backupGrace) {
			t.Logf("99 %% of the creates took up to %v beside a backup, else %v", now, base)
			r.Count(slowByBackup, 1)
		}

		copied, err := os.ReadFile(filepath.Join(h.data, "backups", done.Name+".db"))
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range before[:50] { // the rest of a token, without what all begin with
			if strings.Contains(string(copied), token[28:]) {
				r.Count(tokensInBackups, 1)
			}
		}
		other := newHome(t, roomy())
		if err := os.MkdirAll(other.data, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(other.data, cli.DataFile), copied, 0o600); err != nil {
			t.Fatal(err)
		}
		if !sound(t, other) {
			r.Count(damagedBackups, 1)
		}
		q := other.start(t)
		r.Count(notInBackup, notLiving(t, q, staff, before))
		q.kill()
		r.Count("sessions looked for in a backup", len(before))

		compacting := make(chan error, 1)
		go func() {
			compacting <- admin.call(context.WithoutCancel(t.Context()), "compactStore", params{"waitSeconds": 30}, nil)
		}()
		pause(t, rand.N(400*time.Millisecond))
		p.kill()
		<-compacting
		b.stop()
		before = b.acknowledged()
		if !sound(t, h) {
			r.Count(lostByCompact, 1)
		}
		p = h.start(t)
		r.Count(lostByCompact, notLiving(t, p, staff, before))
		p.kill()
		r.Count("sessions looked for after a kill", len(before))
	})
}

// A job without room is refused, says how many bytes are missing, and leaves nothing
// behind; one whose room others take is given up, and leaves the last of the disk to
// ends.
func TestSystemJobsOnAFullDisk(t *testing.T) {
	dir := mounted(t, "-t", "tmpfs", "-o", "size=96m", "tmpfs")
	config := roomy()
	config["storage"] = map[string]any{"backupBytesPerSecond": 1 << 20}
	h := newHome(t, config).at(dir)
	p := h.start(t)
	staff := hire(t, p)
	admin := newClient(p, staff.admin.AuthToken)
	defer admin.close()
	b := startBusy(t, p, staff)
	for b.count() < grownSessions {
		pause(t, 20*time.Millisecond)
	}
	b.stop()
	missing := regexp.MustCompile(`there is no room for a copy: [1-9][0-9]{3,7} bytes are missing$`)
	refused := func(when, action string, err error) {
		t.Helper()
		if codeOf(err) != storageFull || !missing.MatchString(err.Error()) {
			t.Errorf("%s %s: %v, want %d and how many bytes are missing", action, when, err, storageFull)
		}
		for _, name := range []string{"backups/*", "*.new*"} {
			if left, err := filepath.Glob(filepath.Join(h.data, name)); err != nil || len(left) > 0 {
				t.Errorf("%s %s leaves %v, %v", action, when, left, err)
			}
		}
	}
	for _, action := range []string{"backupStore", "compactStore"} {
		var job struct {
			JobID, State string
			BytesDone    int64
		}
		admin.must(t, action, params{"waitSeconds": 0}, &job)
		for job.BytesDone == 0 && job.State == "running" {
			admin.must(t, action, params{"jobId": job.JobID, "waitSeconds": 0}, &job)
		}
		filler := fillRest(t, dir, 1<<20)
		refused("while others fill the disk", action, admin.call(t.Context(), action, params{"jobId": job.JobID, "waitSeconds": 30}, nil))
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}

	filler := fillRest(t, dir, 0)
	issuer := newClient(p, staff.issuerKey.AuthToken)
	defer issuer.close()
	err := error(nil)
	var made credential
	for err == nil {
		err = issuer.call(t.Context(), "createSession", params{"realm": "app", "username": "somebody"}, &made)
	}
	if codeOf(err) != storageFull {
		t.Fatalf("createSession: %v, want %d", err, storageFull)
	}
	for _, action := range []string{"backupStore", "compactStore"} {
		refused("on a full disk", action, admin.call(t.Context(), action, params{"waitSeconds": 30}, nil))
	}
	for _, token := range b.acknowledged()[:100] {
		c := *admin
		c.token = token
		c.must(t, "deleteSession", nil, nil)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"backupStore", "compactStore"} {
		admin.must(t, action, params{"waitSeconds": 30}, nil)
	}
	p.kill()
	verified(t, h)
	copies, err := filepath.Glob(filepath.Join(h.data, "backups/*.db"))
	if err != nil || len(copies) != 1 {
		t.Fatalf("backups: %v, %v", copies, err)
	}
	if _, err := bolt.Verify(t.Context(), copies[0], nil); err != nil {
		t.Errorf("verify: %v", err)
	}
}

func sound(t *testing.T, h home) bool {
	t.Helper()
	_, err := bolt.Verify(t.Context(), filepath.Join(h.data, cli.DataFile), nil)
	if err != nil {
		t.Logf("verify: %v", err)
	}
	return err == nil
}

// notLiving returns how many of the tokens are of no living session.
func notLiving(t *testing.T, p *process, s staff, tokens []string) (n int) {
	t.Helper()
	c := newClient(p, s.admin.AuthToken)
	defer c.close()
	for some := range slices.Chunk(tokens, validatedAtOnce) {
		var answer struct{ Results []struct{ Valid bool } }
		c.must(t, "validate", params{"tokenIds": some, "refresh": false}, &answer)
		for _, one := range answer.Results {
			if !one.Valid {
				n++
			}
		}
		n += len(some) - len(answer.Results)
	}
	return n
}

// busy creates sessions at a steady rate until the server is gone.
type busy struct {
	end  context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	tokens map[string]bool
	took   []time.Duration
}

func startBusy(t *testing.T, p *process, s staff) *busy {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	b := &busy{end: end, tokens: map[string]bool{}}
	t.Cleanup(b.stop)
	for n := range busyClients {
		b.done.Go(func() {
			c := newClient(p, s.issuerKey.AuthToken)
			defer c.close()
			tick := time.NewTicker(busyClients * time.Second / writesPerSecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				begun := time.Now()
				var made credential
				if err := c.call(ctx, "createSession", params{"realm": "app", "username": fmt.Sprint("u", n)}, &made); err != nil {
					return // the server is gone
				}
				took := time.Since(begun)
				b.mu.Lock()
				b.tokens[made.AuthToken] = true
				b.took = append(b.took, took)
				b.mu.Unlock()
			}
		})
	}
	return b
}

func (b *busy) stop() {
	b.end()
	b.done.Wait()
}

func (b *busy) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.tokens)
}

// turn returns how long the creates took since the turn before.
func (b *busy) turn() []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	took := b.took
	b.took = nil
	return took
}

func (b *busy) acknowledged() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.tokens))
}
