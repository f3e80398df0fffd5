//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiond/internal/cli"
)

// What was revoked after a backup was taken stays revoked when that is restored. Each
// fate is that of an API key of an account of its own.
var fates = []fate{
	{"nothing happens to it", nil, true},
	{"its holder logs out", func(f *fated) { f.own("deleteSession", nil) }, false},
	{"it is revoked by its handle", func(f *fated) { f.admin("revokeSessions", params{"sessionHandles": []string{f.handle}}) }, false},
	{"it is revoked by a filter", func(f *fated) {
		f.admin("revokeSessions", params{"filter": `username eq "` + f.username + `"`, "includePermanent": true})
	}, false},
	{"it is rotated", func(f *fated) { f.own("rotateSession", nil) }, false},
	{"its account is logged out", func(f *fated) { f.admin("logoutByUser", f.with(params{"includePermanent": true})) }, false},
	{"its account's sessions are", func(f *fated) { f.admin("logoutByUser", f.with(nil)) }, true},
	{"its account is disabled", func(f *fated) { f.admin("alterAccount", f.with(params{"enabled": false})) }, false},
	{"its account is disabled for a while", func(f *fated) {
		f.admin("alterAccount", f.with(params{"enabled": false}))
		f.admin("alterAccount", f.with(params{"enabled": true}))
	}, false},
	{"its account is described", func(f *fated) { f.admin("alterAccount", f.with(params{"accountDescription": "new"})) }, true},
	{"its account is dropped", func(f *fated) {
		f.admin("dropAccounts", params{"realm": f.realm, "usernames": []string{f.username}})
	}, false},
	{"its account is dropped and made again", func(f *fated) {
		f.admin("dropAccounts", params{"realm": f.realm, "usernames": []string{f.username}})
		f.admin("createAccount", f.with(nil))
	}, false},
}

type fate struct {
	name  string
	meets func(*fated)
	lives bool // after a restore that knows of it
}

// fated is a key that something happens to.
type fated struct {
	t                       *testing.T
	p                       *process
	staff                   staff
	realm, username, handle string
	token                   string
}

func (f *fated) with(p params) params {
	with := params{"realm": f.realm, "username": f.username}
	maps.Copy(with, p)
	return with
}

func (f *fated) ask(token, action string, p params) {
	f.t.Helper()
	c := newClient(f.p, token)
	defer c.close()
	c.must(f.t, action, p, nil)
}

func (f *fated) admin(action string, p params) {
	f.t.Helper()
	f.ask(f.staff.admin.AuthToken, action, p)
}
func (f *fated) own(action string, p params) { f.t.Helper(); f.ask(f.token, action, p) }

// village is a server with keys, of which a backup was taken.
type village struct {
	home

	staff  staff
	keys   []*fated // in the order of the fates
	backup string
}

// settle makes the keys, and a backup of them.
func settle(t *testing.T) *village {
	t.Helper()
	v := &village{home: newHome(t, roomy())}
	p := v.start(t)
	v.staff = hire(t, p)
	for i := range fates {
		f := &fated{realm: "app", username: "holder-" + string(rune('a'+i)), staff: v.staff}
		made := issue(t, p, v.staff, f.username)
		f.handle, f.token = made.SessionHandle, made.AuthToken
		v.keys = append(v.keys, f)
	}
	p.terminate()
	v.backup = filepath.Join(t.TempDir(), "backup.db")
	copyFile(t, filepath.Join(v.data, cli.DataFile), v.backup)
	return v
}

func issue(t *testing.T, p *process, s staff, username string) (made credential) {
	t.Helper()
	c := newClient(p, s.issuer.AuthToken)
	defer c.close()
	c.must(t, "createSession", params{"realm": "app", "username": username, "permanentSession": true}, &made)
	return made
}

// live lets each key meet its fate.
func (v *village) live(t *testing.T) *process {
	t.Helper()
	p := v.start(t)
	for i := range fates {
		f := v.keys[i]
		f.t, f.p = t, p
		if meets := fates[i].meets; meets != nil {
			meets(f)
		}
	}
	return p
}

func (v *village) journal() string { return filepath.Join(v.data, cli.JournalFile) }

// check compares a server that was started after a restore with what is to be.
func (v *village) check(t *testing.T, p *process, lives func(fate) bool) {
	t.Helper()
	for i, f := range v.keys {
		if got, want := valid(t, p, f.token), lives(fates[i]); got != want {
			t.Errorf("a key lives: %v, want %v, of which after the backup %s", got, want, fates[i].name)
		}
	}
	for _, s := range []credential{v.staff.admin, v.staff.issuer} {
		if valid(t, p, s.AuthToken) {
			t.Error("a session outlived the restore")
		}
	}
}

func valid(t *testing.T, p *process, token string) bool {
	t.Helper()
	c := newClient(p, token)
	defer c.close()
	err := c.call(t.Context(), "validate", nil, nil)
	if err != nil && codeOf(err) != invalidAuthToken {
		t.Fatal(err)
	}
	return err == nil
}

// restore runs the command, and returns what it prints.
func (h home) restore(t *testing.T, backup string, flags ...string) (code int, done cli.Restored, stderr string) {
	t.Helper()
	cmd := h.restoring(t.Context(), backup, flags...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), done, said.String()
	}
	if err == nil {
		err = json.Unmarshal(out, &done)
	}
	if err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	return 0, done, said.String()
}

func (h home) restoring(ctx context.Context, backup string, flags ...string) *exec.Cmd {
	args := append([]string{"-test.run=^TestMainProcess$", "--", "restore", "--config", h.config, "--data", h.data, "--output", "json", backup}, flags...)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), childMark+"=1")
	return cmd
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// spoilings make a journal one that nobody may rely on.
var spoilings = map[string]func(content []byte) []byte{
	"missing": func([]byte) []byte { return nil },
	"empty":   func([]byte) []byte { return []byte{} },
	"torn":    func(c []byte) []byte { return c[:len(c)-3] },
	"edited": func(c []byte) []byte {
		return []byte(strings.Replace(string(c), `"sessionRotated"`, `"sessionAltered"`, 1))
	},
	"gapped": func(c []byte) []byte {
		lines := slices.Collect(strings.SplitAfterSeq(string(c), "\n"))
		return []byte(strings.Join(slices.Delete(lines, 3, 4), ""))
	},
	"another's": func(c []byte) []byte { return []byte(strings.Replace(string(c), `"begin":"`, `"begin":"0`, 1)) },
}

func TestRestore(t *testing.T) {
	v := settle(t)
	p := v.live(t)
	late := issue(t, p, v.staff, "latecomer")
	p.kill()
	store := filepath.Join(v.data, cli.DataFile)
	after, journal := filepath.Join(t.TempDir(), "after.db"), filepath.Join(t.TempDir(), "journal")
	copyFile(t, store, after)
	copyFile(t, v.journal(), journal)

	known := func(f fate) bool { return f.lives }
	type given struct {
		journal string   // how it was spoilt; empty: not at all
		lost    bool     // the store that was there too
		flags   []string // of restore
		keys    string
		lives   func(fate) bool
	}
	all := map[string]given{
		"as it should be":              {keys: "journal", lives: known},
		"the store is lost":            {lost: true, keys: "journal", lives: known},
		"the journal alone is lost":    {journal: "missing", keys: "journal", lives: known}, // what is there still knows
		"all keys are to live, anyhow": {flags: []string{"--accept-resurrected-keys"}, keys: "journal", lives: known},
	}
	for how := range spoilings {
		all["the store is lost, the journal "+how] = given{journal: how, lost: true, keys: "ended", lives: func(fate) bool { return false }}
	}
	all["the store is lost, the journal missing, but accepted"] = given{
		journal: "missing", lost: true, flags: []string{"--accept-resurrected-keys"}, keys: "accepted", lives: func(fate) bool { return true },
	}
	for at, name := range slices.Sorted(maps.Keys(all)) {
		if at%lessUnderRace != 0 {
			continue
		}
		tt := all[name]
		t.Run(name, func(t *testing.T) {
			h := home{config: v.config, data: t.TempDir()}
			w := *v
			w.home = h
			copyFile(t, journal, w.journal())
			if tt.journal != "" {
				spoil(t, w.journal(), spoilings[tt.journal])
			}
			if !tt.lost {
				copyFile(t, after, filepath.Join(h.data, cli.DataFile))
			}
			code, would, stderr := h.restore(t, v.backup, append(tt.flags, "--dry-run")...)
			if code != 0 || !would.DryRun {
				t.Fatalf("dry run: exit code %d: %s", code, stderr)
			}
			code, done, stderr := h.restore(t, v.backup, append(tt.flags, "--yes")...)
			if code != 0 || done.Keys != tt.keys {
				t.Fatalf("exit code %d, keys %q, want %q: %+v %s", code, done.Keys, tt.keys, done, stderr)
			}
			if would.KeysEnded != done.KeysEnded || would.KeysLiving != done.KeysLiving || len(would.Accounts) != len(done.Accounts) {
				t.Errorf("the dry run said %+v, the restore %+v", would, done)
			}
			verified(t, h)
			p := h.start(t)
			w.check(t, p, tt.lives)
			if valid(t, p, late.AuthToken) {
				t.Error("a key lives that is younger than the backup")
			}
			p.kill()
			h.start(t).kill() // the journal goes on
		})
	}
}

func spoil(t *testing.T, path string, how func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := how(content)
	if spoilt == nil {
		err = os.Remove(path)
	} else {
		if string(spoilt) == string(content) {
			t.Fatal("it was not spoilt")
		}
		err = os.WriteFile(path, spoilt, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The time goes on from the latest that was told, though the backup is of before: by the
// data that it takes the place of, or by the journal where that is lost.
func TestRestoreGoesOnInTime(t *testing.T) {
	v := settle(t)
	later := time.Now().Add(30 * time.Minute)
	v.markAt(t, later)
	v.live(t).kill() // revocations of that time
	for name, damage := range map[string]func(path string) error{
		"by the data":    func(string) error { return nil },
		"by the journal": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			h := home{config: v.config, data: t.TempDir()}
			path := filepath.Join(h.data, cli.DataFile)
			copyFile(t, filepath.Join(v.data, cli.DataFile), path)
			copyFile(t, v.journal(), filepath.Join(h.data, cli.JournalFile))
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			if code, _, stderr := h.restore(t, v.backup, "--yes"); code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			if mark := h.mark(t); mark.Before(later) {
				t.Errorf("the time was told to be %v, now it goes on from %v", later, mark)
			}
		})
	}
}
