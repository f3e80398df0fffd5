//go:build linux && system

package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/internal/campaign"
)

// What clients that take their time must leave as it was. Thousands send a header
// or a body a byte at a time, or ask for much and read nothing, while a gateway
// validates sessions. It hardly notices; each of them is cut when its time is
// over, and costs little memory until then. Quiet and besieged turns alternate.
func TestSystemCampaignSlow(t *testing.T) {
	campaign.Run(t, campaign.Plan{
		Name: "slow clients", Trials: 5, Few: 1,
		About: "5 turns of validate beside 5,000 clients that drip headers, 2,000 that drip bodies and then 2,000 that ask for much and do not read it, of whom most are refused at once; each beside a quiet turn",
		Must:  []string{"failed validates", "clients cut late", "medians of p99 beyond 1.5 times and beyond 2 ms more"},
	}, func(r *campaign.Trial) {
		turns, of := 3, slowCrowd{Headers: 500, Bodies: 200, Silent: 300}
		if r.Whole {
			turns, of = 5, slowCrowd{Headers: 5000, Bodies: 2000, Silent: 2000}
		}
		besiege(r, turns, of)
	})
}

const (
	slowTimeout   = 5 * time.Second // requestTimeoutSeconds, unless set
	cutWithin     = time.Second     // of it
	mostPerClient = 20              // KiB
	mostUnread    = 96              // MiB: what may wait to be read is 16, and the collector comes late
)

func besiege(r *campaign.Trial, turns int, of slowCrowd) {
	const gateways, validates = 16, 600
	t := r.T
	config := services(nil)
	config["maxConnectionsPerIpAddress"] = 0
	p := loggedServer(t, config)
	staff := hire(t, p)
	f := &flood{t: t, address: strings.TrimPrefix(p.url, "http://")}
	of.Address = f.address
	validate := validateRequest(staff.admin.AuthToken, staff.issuer.AuthToken)

	during := func(watch func()) *sample {
		ctx, cancel := context.WithCancel(t.Context())
		s := &sample{}
		var group sync.WaitGroup
		for n := range gateways {
			group.Go(func() { f.validate(ctx, s, n, time.Second*gateways/validates, validate) })
		}
		watch()
		cancel()
		group.Wait()
		return s
	}
	var quiet, besieged []*sample
	for turn := range turns {
		quiet = append(quiet, during(func() { pause(t, 3*time.Second) }))
		before, open := p.anonymous(t), p.descriptors(t)
		besieged = append(besieged, during(func() {
			c := of.come(t, r.Whole)
			drips := of.Headers + of.Bodies
			held := p.descriptors(t) - open
			for begun := time.Now(); held < drips*4/5 && time.Since(begun) < time.Second; held = p.descriptors(t) - open { // some of the turn before may have gone meanwhile
				pause(t, 10*time.Millisecond) // the kernel takes them in before the server does
			}
			if held < drips*4/5 {
				t.Errorf("the server holds %d connections more: this is no siege of %d", held, drips)
			}
			dripping := p.anonymous(t)
			each := (dripping - before) / int64(drips)
			r.Most("KiB for a client that drips", each)
			if each > mostPerClient {
				t.Errorf("%d KiB for each client that drips, want at most %d", each, mostPerClient)
			}
			c.goOn(t)
			unread := (p.anonymous(t) - dripping - int64(of.Silent)*mostPerClient) >> 10
			r.Most("MiB for answers that are not read", unread)
			if unread > mostUnread {
				t.Errorf("%d MiB for answers that are not read, want at most %d", unread, mostUnread)
			}
			c.end(t)
			last := c.Lasted[len(c.Lasted)-1]
			r.Most("ms until a slow client was cut", last.Milliseconds())
			late, _ := slices.BinarySearch(c.Lasted, slowTimeout+cutWithin)
			r.Count("clients cut late", len(c.Lasted)-late)
			r.Count("clients that asked for much and were refused at once", c.Refused)
			t.Logf("%d KiB for each client that drips, %d MiB for answers; %d refused, the others cut after %v to %v", each, unread, c.Refused, c.Lasted[0], last)
			if got := len(c.Lasted) + c.Refused; got != of.all() || c.Refused == of.Silent {
				t.Errorf("%d clients of %d were cut or refused, of %d that do not read %d were refused", got, of.all(), of.Silent, c.Refused)
			}
		}))
		t.Logf("turn %d: validate p50 %v and %v, p99 %v and %v", turn+1, quantile(quiet[turn].took, 0.5), quantile(besieged[turn].took, 0.5),
			quantile(quiet[turn].took, 0.99), quantile(besieged[turn].took, 0.99))
	}
	middle := func(samples []*sample, q float64) time.Duration {
		var each []time.Duration
		for _, s := range samples {
			each = append(each, quantile(s.took, q))
		}
		return quantile(each, 0.5)
	}
	for _, s := range slices.Concat(quiet, besieged) {
		r.Count("failed validates", s.failed)
		r.Count("validates", len(s.took))
	}
	base, worse := middle(quiet, 0.99), middle(besieged, 0.99)
	t.Logf("validate p99 %v quiet, %v besieged", base, worse)
	r.Most("µs of validate p99, quiet,", base.Microseconds())
	r.Most("µs of validate p99, besieged,", worse.Microseconds())
	if !r.Whole { // a few turns on a machine that does other things tell of the median only
		base, worse = middle(quiet, 0.5), middle(besieged, 0.5)
	}
	r.Count("medians of p99 beyond 1.5 times and beyond 2 ms more", oneIf(worse > max(base*3/2, base+2*time.Millisecond)))
}
