//go:build linux && system

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sessiond/internal/campaign"
	"sessiond/internal/cli"
	"sessiond/internal/faultfs"
)

// faulty is a file system for faults that is mounted anew after each cut.
type faulty struct {
	*faultfs.FS

	t           *testing.T
	backing, at string
}

// newFaulty mounts one with a copy of a data folder, if it is named.
func newFaulty(t *testing.T, data string) *faulty {
	t.Helper()
	f := &faulty{t: t, backing: memory(t, 256), at: t.TempDir()}
	if data != "" {
		if err := os.CopyFS(home{}.at(f.backing).data, os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
	}
	f.mount()
	return f
}

func (f *faulty) mount() { f.FS = faultfs.Mount(f.t, f.backing, f.at) }

// cut takes the power, kills whoever uses the files, and gives the power back.
func (f *faulty) cut(loss faultfs.Loss, kill func()) {
	f.Cut(loss)
	kill()
	f.Unmount()
	f.mount()
}

// Power cuts under load, on a file system of our own: of what was not synced
// nothing survives, or some sectors do and others do not.
func TestSystemCampaignPowerTorn(t *testing.T) {
	var f *faulty
	c := &cycles{t: t}
	c.home = func(*campaign.Trial) home {
		if f != nil {
			f.Unmount()
		}
		f = newFaulty(t, "")
		f.Delay(faultfs.Sync, time.Millisecond) // so that most cuts come between a write and the end of its sync
		return newHome(t, crowded()).at(f.at)
	}
	c.end = func(r *campaign.Trial, kill func()) {
		loss := faultfs.All
		if r.N%3 > 0 {
			loss = faultfs.Some
			r.Count("cuts that left some sectors", 1)
		}
		if rand.N(4) == 0 { // in place of a call, and not beside it
			select {
			case <-f.CutAt(faultfs.Call{On: faultfs.Change, Nth: 1 + rand.N(20)}, loss):
			case <-time.After(time.Second): // nobody writes any more
			}
		}
		f.cut(loss, kill)
		f.Delay(faultfs.Sync, time.Millisecond)
	}
	campaign.Run(t, campaign.Plan{
		Name: "power cut under load, lost and torn writes", Trials: 200, Few: 10, Must: cycleMust(),
		About: "the power cut below a server with 16 clients, on a FUSE file system that keeps no or some sectors of 512 bytes of what was not synced",
	}, c.trial)
}

// Power cuts while the file is made, and once the server has said that it is ready:
// before that the file opens or is not there, after it it is there. The server starts.
func TestSystemCampaignFirstCreation(t *testing.T) {
	const calls = 40                // more than a first start makes
	const cycle, made, cuts = 5, 3, // of five trials three are cut while the file is made
		2*calls + 1
	campaign.Run(t, campaign.Plan{
		Name: "power cut during the first creation", Trials: cuts / made * cycle, Few: 2 * cycle, Must: []string{unopened},
		About: fmt.Sprintf("an empty data folder, and the power cut in place of the nth call that changes the disk, for n = 1 to %d, twice, or once the server says that it is ready; "+
			"of what was not synced all lost, or some sectors left; the journal in the data folder or elsewhere", calls),
	}, func(r *campaign.Trial) {
		at, n, loss := r.N/cycle*made+r.N%cycle, 0, faultfs.Loss(r.N/cycle%2)
		if r.N%cycle < made {
			n, loss = 1+at*7%calls, faultfs.Loss((at+at/calls)%2) // 7 and 40 have no divisor in common
		}
		f := newFaulty(r.T, "")
		s := crowded()
		if r.N%2 == 1 { // so that nobody else syncs the folder
			s["storage"] = map[string]any{"revocationLog": filepath.Join(r.T.TempDir(), cli.JournalFile)}
		}
		h := newHome(r.T, s).at(f.at)
		ready := false
		cut := f.CutAt(faultfs.Call{On: faultfs.Change, Nth: n}, loss)
		p := h.launch(r.T)
		select {
		case <-cut:
			r.Count("cuts before the server was ready", 1)
		case <-p.output.address:
			ready = true
			r.Count("cuts once it was ready", 1)
		case <-time.After(startWithin):
			r.T.Errorf("the server neither wrote nor started:\n%s", p.output)
		}
		f.cut(loss, p.kill)
		switch _, err := os.Stat(filepath.Join(h.data, cli.DataFile)); {
		case errors.Is(err, fs.ErrNotExist):
			r.Count("no file afterwards", 1)
			if ready {
				r.Count(unopened, 1)
			}
		case err != nil:
			r.T.Error(err)
		default:
			whole(r, h)
		}
		p = opened(r, r.T, h)
		hire(r.T, p)
		p.kill()
		f.Unmount()
	})
}
