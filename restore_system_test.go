//go:build linux && system

package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiond/internal/campaign"
	"sessiond/internal/cli"
)

// A server under load is killed, and a backup from before the load is restored: no
// session lives, no API key whose end was acknowledged, and all others do. Where the
// journal cannot be relied on and the data is lost, no key lives, or all do where that
// was asked for.
func TestSystemCampaignRestore(t *testing.T) {
	campaign.Run(t, campaign.Plan{
		Name: "restore of a backup", Trials: 20, Few: 2,
		About: "16 clients create, end and revoke sessions and API keys after a backup, kill -9, restore, start",
		Must:  []string{"sessions alive", "ended or rotated keys alive", "keys lost", "keys alive without a journal"},
	}, restoreTrial)
}

func restoreTrial(r *campaign.Trial) {
	t := r.T
	v := settle(t)
	p := v.start(t)
	l := newLedger(v.staff)
	l.enlist(t, p)
	l.load(t, p, 500*time.Millisecond, p.kill)
	copyFile(t, filepath.Join(v.data, cli.DataFile), v.backup) // of all that was acknowledged until then
	p = v.start(t)
	l.decide(t, p)
	inBackup := map[*record]int{} // those that lived, and how many tokens each had had
	for _, r := range l.all {
		if r.state == living {
			inBackup[r] = len(r.replaced)
		}
	}
	known, err := os.ReadFile(v.journal()) // of before the backup
	if err != nil {
		t.Fatal(err)
	}
	p.kill()

	p = v.live(t)
	l.load(t, p, time.Duration(300+rand.N(700))*time.Millisecond, p.kill)
	lost, accepted, journal := r.N%2 == 1, r.N%3 == 2, ""
	if lost {
		if err := os.Truncate(filepath.Join(v.data, cli.DataFile), 4096); err != nil {
			t.Fatal(err)
		}
		if r.N%4 == 3 {
			journal = spoiltIn(t, v, r.N/4)
			r.Count("journals spoilt", 1)
		}
	}
	text, err := os.ReadFile(v.journal())
	if err != nil && journal != "missing" {
		t.Fatal(err)
	}
	flags := []string{"--yes"}
	if accepted {
		flags = append(flags, "--accept-resurrected-keys")
	}
	code, done, stderr := v.restore(t, v.backup, flags...)
	if code != 0 {
		t.Fatalf("restore: exit code %d: %s", code, stderr)
	}
	want := "journal"
	if journal != "" {
		if want = "ended"; accepted {
			want = "accepted"
		}
	}
	if done.Keys != want {
		t.Errorf("keys were decided by %q, want %q; the journal was %q", done.Keys, want, journal)
	}
	verified(t, v.home)
	p = v.start(t)
	r.Most("ms until ready", p.ready.Milliseconds())
	v.check(t, p, func(f fate) bool { return want == "accepted" || want == "journal" && f.lives })
	compare(r, p, l, inBackup, want, strings.TrimPrefix(string(text), string(known)))
	p.kill()
	p = v.start(t) // and it is so after a restart
	compare(r, p, l, inBackup, want, strings.TrimPrefix(string(text), string(known)))
	if code, _ := p.terminate(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.output)
	}
}

// spoiltIn spoils the journal in one of the ways, and names it.
func spoiltIn(t *testing.T, v *village, n int) string {
	t.Helper()
	var names []string
	for name := range spoilings {
		names = append(names, name)
	}
	slices.Sort(names)
	name := names[n%len(names)]
	spoil(t, v.journal(), spoilings[name])
	return name
}

// compare compares what lives with what the clients know. The journal is what it says
// of the time after the backup.
func compare(r *campaign.Trial, p *process, l *ledger, inBackup map[*record]int, keys, journal string) {
	r.T.Helper()
	rows := allLiving(r.T, p)
	for _, record := range l.all {
		_, lives := rows[record.handle]
		tokens, was := inBackup[record]
		// An answer may have been lost.
		rotated := len(record.replaced) > tokens || strings.Contains(journal, `"kind":"sessionRotated","sessionHandle":"`+record.handle+`"`)
		switch {
		case !record.permanent && lives:
			r.Count("sessions alive", 1)
		case !record.permanent:
			r.Count("sessions ended by a restore", 1)
		case keys == "ended" && lives:
			r.Count("keys alive without a journal", 1)
		case keys == "journal" && lives && (record.state == dead || rotated):
			r.Count("ended or rotated keys alive", 1)
		case keys != "ended" && !lives && was && (record.state == living && !rotated || keys == "accepted"):
			r.Count("keys lost", 1)
		case lives:
			r.Count("keys that lived on", 1)
		}
	}
}

// allLiving lists what lives, for somebody who has just logged in.
func allLiving(t *testing.T, p *process) map[string]row {
	t.Helper()
	admin := newClient(p, "")
	defer admin.close()
	var made credential
	admin.must(t, "createSession", params{"username": "admin", "password": adminPassword}, &made)
	admin.token = made.AuthToken
	return listed(t, admin)
}

// decide settles what was under way when the server ended.
func (l *ledger) decide(t *testing.T, p *process) {
	t.Helper()
	rows := allLiving(t, p)
	for _, r := range l.all {
		if _, lives := rows[r.handle]; r.state == dying && lives {
			r.state = living
		} else if r.state == dying {
			l.markDead([]*record{r})
		}
	}
	clear(l.creating)
	l.free = slices.DeleteFunc(slices.Clone(l.all), func(r *record) bool { return r.state != living || r.private })
}
