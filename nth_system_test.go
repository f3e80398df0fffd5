//go:build linux && system

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/campaign"
	"sessiond/internal/faultfs"
)

const (
	hangs        = "hangs of more than 10 s"
	hang         = 10 * time.Second
	notMet       = "faults that did not come up"
	truncates    = 4 // a file this small is resized no more often
	lastNth      = 200
	afterFault   = 100 * time.Millisecond
	faultWithin  = 3 * time.Second
	againForLoad = 100 * time.Millisecond
)

// fewNths are the first trials.
func fewNths() []int { return []int{1, 4, 13, 40} }

// The nth write, sync or resizing fails, of all that changes the disk from some
// moment on. Nothing is acknowledged that is not durable; a failing disk stops all
// writing; asking goes on. A server that is started again on what the kernel then
// shows, or on what the disk really has, has all that was acknowledged, also when
// the power goes later.
func TestSystemCampaignNth(t *testing.T) {
	var template nthTemplate
	campaign.Run(t, campaign.Plan{
		Name: "the nth write, sync or resizing fails", Trials: lastNth, Few: len(fewNths()),
		Must: slices.Concat(cycleMust(), []string{falselyAcked, hangs}),
		About: fmt.Sprintf("for an n from 1 to %d the nth write and sync (to n = %d resizing) failing with EIO and with ENOSPC under 16 clients, "+
			"then a start on what the kernel shows, on what the disk has, or after a power cut; more load, a power cut, a start", lastNth, truncates),
	}, func(r *campaign.Trial) {
		if template.data == "" {
			template.make(t)
		}
		for _, op := range []faultfs.Op{faultfs.Write, faultfs.Sync, faultfs.Truncate} {
			for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
				if n := nthOf(r.N); op != faultfs.Truncate || n <= truncates {
					template.trial(r, op, n, errno)
				}
			}
		}
	})
}

// nthOf returns the n of a trial: each from 1 to the last one, the few first.
func nthOf(trial int) int {
	few := fewNths()
	if trial < len(few) {
		return few[trial]
	}
	n := trial - len(few)
	for at := 1; ; at++ {
		if slices.Contains(few, at) {
			continue
		}
		if n == 0 {
			return at
		}
		n--
	}
}

// nthTemplate is a data folder with staff, of which most trials have a copy.
type nthTemplate struct {
	home

	staff staff
}

func (n *nthTemplate) make(t *testing.T) {
	t.Helper()
	n.home = newHome(t, roomy()).at(memory(t, 64))
	p := n.start(t)
	n.staff = hire(t, p)
	newLedger(n.staff).enlist(t, p)
	if code, _ := p.terminate(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.output)
	}
}

// trial lets one call fail: of a server under load or, where it resizes its file,
// of the first start of a new one.
func (n *nthTemplate) trial(r *campaign.Trial, op faultfs.Op, nth int, errno syscall.Errno) {
	data, isNew := n.data, op == faultfs.Truncate
	if isNew {
		data = ""
	}
	f := newFaulty(r.T, data)
	h := n.at(f.at)
	defer f.Unmount()
	l := newLedger(n.staff)
	l.faulty = true
	defer func() {
		for figure, count := range l.figures {
			r.Count(figure, count)
		}
		r.Count("acknowledged changes", l.creates+l.ends+l.changes)
		r.Count("answers that something was not written", int(l.refusals.Load()))
		if r.T.Failed() {
			r.T.Fatalf("the failing call was number %d of kind %d: %v", nth, op, errno)
		}
	}()

	var met <-chan struct{}
	atStart := isNew || rand.N(4) == 0
	if atStart {
		met = f.Fail(faultfs.Call{On: op, Nth: nth}, errno)
	}
	switch p := begin(r, r.T, h); {
	case p != nil && isNew:
		p.kill()
	case p != nil:
		if !atStart {
			met = f.Fail(faultfs.Call{On: op, Nth: nth}, errno)
		}
		l.loadUntil(r.T, p, func() {
			select {
			case <-met:
				pause(r.T, afterFault)
			case <-time.After(faultWithin):
			}
		}, p.kill)
		r.Most("ms that an answer took", time.Duration(l.slowest.Load()).Milliseconds())
		if time.Duration(l.slowest.Load()) > hang {
			r.Count(hangs, 1)
		}
	}
	select {
	case <-met:
		r.Count("faults", 1)
	default:
		r.Count(notMet, 1)
	}
	f.Heal() // or it would come up later

	switch rand.N(4) {
	case 0: // the kernel shows what it showed
	case 1:
		f.Evict()
	case 2:
		f.cut(faultfs.All, func() {})
	default:
		f.cut(faultfs.Some, func() {})
	}
	n.compare(r, h, l, isNew)
	f.cut(faultfs.All, func() {})
	whole(r, h)
	n.compare(r, h, l, false)
}

// compare starts a server, compares it with what is known, and loads it until it
// is killed.
func (n *nthTemplate) compare(r *campaign.Trial, h home, l *ledger, isNew bool) {
	p := opened(r, r.T, h)
	if isNew {
		l.staff = hire(r.T, p)
		l.enlist(r.T, p)
	}
	l.check(r.T, p)
	l.load(r.T, p, againForLoad, p.kill)
}
