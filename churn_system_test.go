//go:build linux && system

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/actions"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/campaign"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/logging"
	"sessiond/internal/session"
	"sessiond/internal/upkeep"
	"sessiond/store/bolt"
)

const (
	tooLarge = "times that the file was larger than 3 times its data"

	leftAlone = 64 << 20 // bytes of a file that is not compacted by itself

	churnIdle      = 5 * time.Minute
	churnRetention = 10 * time.Minute
)

// However many sessions come and go, the file is at most three times as large as what
// is kept, their tombstones and events included, or too small to matter.
func TestSystemCampaignChurn(t *testing.T) {
	campaign.Run(t, campaign.Plan{
		Name: "churn", Trials: 1, Few: 1, Must: []string{tooLarge},
		About: "6 rounds of 50,000 sessions, of which more or fewer stay: created, revoked, expired, purged, and the file compacted as the server does it by itself; looked at after each step",
	}, func(r *campaign.Trial) {
		t := r.T
		c, each := newChurn(r), 50_000
		if c.few = 1; !r.Whole {
			c.few = 32
			each /= c.few
		}
		for _, stay := range []int{70, 70, 70, 50, 10, 0} { // %
			made := c.create(each, stay)
			c.look("created")
			c.revoke(made)
			c.look("revoked")
			c.stage.clock.Advance(churnIdle + time.Second)
			c.stage.maintain(t)
			c.look("expired")
			c.stage.clock.Advance(churnRetention + time.Minute)
			c.stage.maintain(t)
			c.look("purged")
		}
		r.Count("times that the file was compacted", c.compacted)
		if c.compacted == 0 {
			t.Error("the file was never compacted")
		}
	})
}

// A churn is a server on a file, whose clock is the test's.
type churn struct {
	r         *campaign.Trial
	stage     *stage
	store     *bolt.Store
	path      string
	keeper    *upkeep.Keeper
	few       int // how many times fewer sessions there are than it takes to be compacted
	compacted int
}

func newChurn(r *campaign.Trial) *churn {
	t := r.T
	c := &churn{r: r, path: filepath.Join(t.TempDir(), "data")}
	var err error
	if c.store, err = bolt.Open(t.Context(), c.path, bolt.Options{}); err != nil {
		t.Fatal(err)
	}
	c.stage, err = newStage(t.Context(), props{
		store: c.store, hasher: cheapHasher(t), logins: []string{"admin=admin:key"}, log: logging.Nop(),
		config: `{"realms":[{"name":"app","type":"trusted"}],"jsonActionApiDefaults":{"maxJsonApiSessions":0,"maxJsonApiSessionsPerUsername":0,
		  "maxJsonApiSessionsPerIpAddress":0,"defaultRetentionUnit":"minute","defaultRetentionPeriod":10}}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.keeper = upkeep.New(t.Context(), upkeep.Deps{
		Files: c.store, Dir: filepath.Dir(c.path), Clock: c.stage.clock, Log: logging.Nop(), Record: actions.WriteEvents(c.store),
	})
	t.Cleanup(func() {
		c.keeper.Stop()
		c.stage.sessions.Close()
		if err := c.store.Close(); err != nil {
			t.Error(err)
		}
		if _, err := bolt.Verify(context.WithoutCancel(t.Context()), c.path, nil); err != nil {
			t.Errorf("verify: %v", err)
		}
	})
	return c
}

// create issues sessions, of which so many of 100 never end by themselves.
func (c *churn) create(n, stay int) (leaving []api.ID) {
	t := c.r.T
	cfg := c.stage.config.Get()
	realm := slices.IndexFunc(cfg.Realms, func(r config.Realm) bool { return r.Name == "app" })
	var next atomic.Int64
	var failed atomic.Bool
	var mu sync.Mutex
	var creators sync.WaitGroup
	for range 256 { // that share commits
		creators.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !failed.Load(); i = int(next.Add(1)) - 1 {
				idle := int64(churnIdle.Seconds())
				if rand.N(100) < stay {
					idle = 0
				}
				made, _, err := c.stage.sessions.Create(t.Context(), &session.NewSession{
					Realm: &cfg.Realms[realm], Username: fmt.Sprint("user-", i/10), Idle: idle,
					Issuer: &session.Caller{Live: session.Live{Permissions: account.AllPermissions}}, Settings: cfg.Defaults.Settings,
					Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
				})
				if err != nil {
					failed.Store(true)
					t.Error(err)
				}
				mu.Lock()
				if err == nil && idle > 0 {
					leaving = append(leaving, made.Handle)
				}
				mu.Unlock()
			}
		})
	}
	creators.Wait()
	if failed.Load() {
		t.FailNow()
	}
	return leaving
}

// revoke ends half of some sessions.
func (c *churn) revoke(leaving []api.ID) {
	for some := range slices.Chunk(leaving[:len(leaving)/2], 100) {
		var handles []string
		for _, h := range some {
			handles = append(handles, session.HandlePrefix+h.String())
		}
		c.stage.must(c.r.T, spoken{c.stage.byName["token:admin"], "revokeSessions", object{"sessionHandles": handles}})
	}
}

// look does what the server does now and then, and looks at the file.
func (c *churn) look(when string) {
	t := c.r.T
	file, free := c.store.Size()
	if upkeep.Wasteful(file*int64(c.few), free*int64(c.few)) {
		if j, err := c.keeper.Compact(t.Context(), time.Minute, event.Event{}); err != nil || j.State != api.JobDone {
			t.Fatalf("compacting: %+v, %v", j, err)
		}
		c.compacted++
	}
	info, err := os.Stat(c.path)
	if err != nil {
		t.Fatal(err)
	}
	backup := c.path + "-backup"
	if _, err := c.store.Backup(t.Context(), backup, bolt.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	live, err := bolt.Verify(t.Context(), backup, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(backup); err != nil {
		t.Fatal(err)
	}
	file, _ = c.store.Size()
	t.Logf("%s: %d KiB of the file are in use, for %d KiB of data; a copy has %d", when, file>>10, live.Bytes>>10, live.Size>>10)
	if file > leftAlone/int64(c.few) {
		c.r.Most("% of its data that a file was", 100*file/live.Bytes)
		c.r.Count(tooLarge, oneIf(file > 3*live.Bytes))
	}
	c.r.Most("MiB of the file", info.Size()>>20)
}
