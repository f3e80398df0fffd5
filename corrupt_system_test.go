//go:build linux && system

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/internal/campaign"
	"sessiond/internal/cli"
	"sessiond/store"
	"sessiond/store/bolt"
)

// Whatever damages a file, the server refuses it and says why, or serves all of it;
// and what is salvaged holds nearly all, and nothing lives in it that had ended.
func TestSystemCampaignCorrupt(t *testing.T) {
	var made *victim
	campaign.Run(t, campaign.Plan{
		Name: "damaged file", Trials: 2000, Few: 40,
		About: "a flipped bit, a page's head, a zeroed or cut off part, swapped pages or an old meta page, in a file of 3,000 sessions",
		Must: []string{
			"damages that went unseen", "starts without a verdict in 10 s", "damaged files that were changed", "salvages that failed",
			"sessions brought back to life", "salvages of less than 99 % of the sessions",
		},
	}, func(r *campaign.Trial) {
		if made == nil {
			made = newVictim(t)
		}
		made.trial(r)
	})
}

const pageBytes = 4096

// victim is a file that was sound once.
type victim struct {
	content []byte
	living  map[string]bool
	ended   map[string]bool
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	const sessions, clients = 3000, 16
	h := newHome(t, services(nil))
	p := h.start(t)
	staff := hire(t, p)
	var group sync.WaitGroup
	for n := range clients {
		group.Go(func() {
			c := newClient(p, staff.issuerKey.AuthToken)
			defer c.close()
			admin := newClient(p, staff.admin.AuthToken)
			defer admin.close()
			var handles []string
			for i := range sessions / clients {
				var one credential
				if err := c.call(t.Context(), "createSession", params{"realm": "app", "username": fmt.Sprint("user-", n, "-", i%40)}, &one); err != nil {
					t.Error(err)
					return
				}
				if handles = append(handles, one.SessionHandle); len(handles) == 20 {
					if err := admin.call(t.Context(), "revokeSessions", params{"sessionHandles": handles[:7]}, nil); err != nil {
						t.Error(err)
					}
					handles = nil
				}
			}
		})
	}
	group.Wait()
	if code, _ := p.terminate(); code != 0 || t.Failed() {
		t.Fatalf("exit code %d:\n%s", code, p.output)
	}
	path := filepath.Join(h.data, cli.DataFile)
	v := &victim{}
	var err error
	if v.content, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if v.living, v.ended, err = standing(t, path); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sessions live and %d have ended, in %d pages", len(v.living), len(v.ended), len(bytes.TrimRight(v.content, "\x00"))/pageBytes)
	return v
}

// standing returns the handles that live in a store, and those that have ended.
func standing(t *testing.T, path string) (living, ended map[string]bool, err error) {
	st, err := bolt.Open(t.Context(), path, bolt.Options{})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	living, ended = map[string]bool{}, map[string]bool{}
	for _, kind := range []string{"sess/", "end/", "past/"} {
		r := store.Range{Prefix: kind}
		for {
			items, err := st.List(t.Context(), r)
			if err != nil {
				return nil, nil, err
			}
			for i := range items {
				h := strings.TrimPrefix(items[i].Key, kind)
				if kind == "sess/" {
					living[h] = true
				} else {
					ended[h] = true
					delete(living, h)
				}
			}
			if len(items) < 1000 {
				break
			}
			r.After = items[len(items)-1].Key
		}
	}
	return living, ended, nil
}

// mutate damages a file in a way that follows from the random numbers.
func mutate(f []byte, random *rand.Rand) (_ []byte, how string) {
	pages := len(bytes.TrimRight(f, "\x00"))/pageBytes + 1
	page := func() int { return random.IntN(pages) }
	of := func(id int) []byte { return f[id*pageBytes : (id+1)*pageBytes] }
	switch random.IntN(7) {
	case 0, 1:
		at, bit := random.IntN(pages*pageBytes), random.IntN(8)
		f[at] ^= 1 << bit
		return f, fmt.Sprintf("byte %d, bit %d", at, bit)
	case 2:
		id, at, bit := page(), random.IntN(48), random.IntN(8)
		of(id)[at] ^= 1 << bit
		return f, fmt.Sprintf("page %d, head byte %d, bit %d", id, at, bit)
	case 3:
		id := page()
		clear(of(id))
		return f, fmt.Sprintf("page %d zeroed", id)
	case 4:
		size := random.IntN(pages * pageBytes)
		return f[:size], fmt.Sprintf("cut off at %d", size)
	case 5:
		a, b := page(), page()
		was := bytes.Clone(of(a))
		copy(of(a), of(b))
		copy(of(b), was)
		return f, fmt.Sprintf("pages %d and %d swapped", a, b)
	default:
		newest := 0
		if binary.NativeEndian.Uint64(of(1)[64:]) > binary.NativeEndian.Uint64(of(0)[64:]) {
			newest = 1
		}
		copy(of(newest), of(1-newest))
		return f, "the older meta page over the newer one"
	}
}

func (v *victim) trial(r *campaign.Trial) {
	t := r.T
	random := rand.New(rand.NewPCG(uint64(r.N), 7))
	h := newHome(t, services(nil))
	if err := os.MkdirAll(h.data, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.data, cli.DataFile)
	bad, how := mutate(bytes.Clone(v.content), random)
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	p := h.launch(t)
	select {
	case p.url = <-p.output.address:
		v.serves(r, p, how)
		return
	case <-p.exited:
	case <-time.After(10 * time.Second):
		r.Count("starts without a verdict in 10 s", 1)
		t.Fatalf("%s:\n%s", how, p.output)
	}
	r.Most("ms until refused", time.Since(begun).Milliseconds())
	r.Count("refused", 1)
	if code := p.cmd.ProcessState.ExitCode(); code != 65 || !strings.Contains(p.output.String(), "damaged data") {
		r.Count("damages that went unseen", 1)
		t.Errorf("%s: exit code %d:\n%s", how, code, p.output)
	}
	if now, err := os.ReadFile(path); err != nil || sha256.Sum256(now) != sha256.Sum256(bad) {
		r.Count("damaged files that were changed", 1)
		t.Errorf("%s: the file has changed: %v", how, err)
	}
	out := filepath.Join(h.data, "salvaged.db")
	done, err := salvage(t.Context(), cli.SalvageOptions{File: path, Out: out})
	if err != nil {
		r.Count("salvages that failed", 1)
		t.Fatalf("%s: %v", how, err)
	}
	v.compare(r, out, how, done)
}

// serves has a server that has started show that it serves all.
func (v *victim) serves(r *campaign.Trial, p *process, how string) {
	r.Count("served", 1)
	if code, _ := p.terminate(); code != 0 {
		r.T.Errorf("%s: exit code %d:\n%s", how, code, p.output)
	}
	living, _, err := standing(r.T, filepath.Join(p.cmd.Args[len(p.cmd.Args)-1], cli.DataFile))
	if err != nil || len(living) != len(v.living) {
		r.Count("damages that went unseen", 1)
		r.T.Errorf("%s: %d sessions live, of %d: %v", how, len(living), len(v.living), err)
	}
}

// compare holds what was salvaged against what there was. What was cut off is no record
// that was intact.
func (v *victim) compare(r *campaign.Trial, out, how string, done *cli.Salvaged) {
	living, ended, err := standing(r.T, out)
	if err != nil {
		r.Count("salvages that failed", 1)
		r.T.Fatalf("%s: %v", how, err)
	}
	kept, revived := 0, 0
	for h := range v.living {
		if living[h] || ended[h] {
			kept++
		}
		if ended[h] {
			r.Count("sessions ended as undecided", 1)
		}
	}
	for h := range v.ended {
		if living[h] {
			revived++
		}
	}
	if revived > 0 {
		r.Count("sessions brought back to life", revived)
		r.T.Errorf("%s: %+v", how, done)
	}
	if strings.HasPrefix(how, "cut off") {
		r.Count("sessions kept of files that were cut off", kept)
		return
	}
	r.Most("sessions lost by one damage", int64(len(v.living)-kept))
	if kept*100 < len(v.living)*99 {
		r.Count("salvages of less than 99 % of the sessions", 1)
		r.T.Errorf("%s: %d of %d: %+v", how, kept, len(v.living), done)
	}
}
