//go:build linux && system

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sessiond/internal/cli"
)

// A data folder that cannot be written is refused at the start.
func TestSystemReadOnlyFolder(t *testing.T) {
	dir := mounted(t, "-t", "tmpfs", "-o", "size=32m", "tmpfs")
	h := newHome(t, services(nil))
	h.data = filepath.Join(dir, "data")
	if code, _ := h.start(t).terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	shell(t, "mount", "-o", "remount,ro", dir)
	p := h.launch(t)
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.output.String(), "read-only file system") || !strings.Contains(p.output.String(), h.data) {
		t.Errorf("exit code %d, want 1, with what is wrong and where:\n%s", code, p.output)
	}
	shell(t, "mount", "-o", "remount,rw", dir)
	if code, _ := h.start(t).terminate(); code != 0 {
		t.Errorf("once it can be written: exit code %d", code)
	}
}

// A file system that turns read-only under the server, as ext4 does when it finds
// itself damaged, stops writing and nothing else.
func TestSystemTurnsReadOnly(t *testing.T) {
	disk := ext4(t, 48<<20)
	dir := mounted(t, "-o", "loop,errors=remount-ro", disk)
	h := newHome(t, services(nil))
	h.data = filepath.Join(dir, "data")
	p := h.start(t)
	staff := hire(t, p)
	issuer, admin := newClient(p, staff.issuerKey.AuthToken), newClient(p, staff.admin.AuthToken)
	defer issuer.close()
	defer admin.close()
	create := func() (made credential, err error) {
		err = issuer.call(t.Context(), "createSession", params{"realm": "app", "username": "somebody"}, &made)
		return made, err
	}
	kept, err := create()
	if err != nil {
		t.Fatal(err)
	}
	ended, err := create()
	if err != nil {
		t.Fatal(err)
	}
	source, err := exec.CommandContext(t.Context(), "findmnt", "-n", "-o", "SOURCE", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	device := filepath.Base(strings.TrimSpace(string(source)))
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("test"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := create(); codeOf(err) != outcomeUnknown {
		t.Errorf("the first createSession: %v, want %d", err, outcomeUnknown)
	}
	for range 3 {
		if _, err := create(); codeOf(err) != storageFailed {
			t.Errorf("a later createSession: %v, want %d", err, storageFailed)
		}
	}
	if err := admin.call(t.Context(), "revokeSessions", params{"sessionHandles": []string{ended.SessionHandle}}, nil); codeOf(err) != storageFailed {
		t.Errorf("revokeSessions: %v, want %d", err, storageFailed)
	}
	for _, action := range []string{"backupStore", "compactStore"} {
		if err := admin.call(t.Context(), action, params{"waitSeconds": 10}, nil); codeOf(err) != storageFailed {
			t.Errorf("%s: %v, want %d", action, err, storageFailed)
		}
	}
	for _, of := range []struct {
		credential
		want bool
	}{{kept, true}, {ended, false}} {
		var decided struct{ Valid bool }
		admin.must(t, "validate", params{"tokenId": of.AuthToken}, &decided)
		if decided.Valid != of.want {
			t.Errorf("valid: %v, want %v: ends are in force though they cannot be written", decided.Valid, of.want)
		}
	}
	if _, err := os.Stat(filepath.Join(h.data, cli.DataFile+".suspect")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("marker: %v, want none: the file system lost nothing", err)
	}
	p.kill()
	shell(t, "umount", dir)
	shell(t, "mount", "-o", "loop", disk, dir)
	p = h.start(t)
	again := newClient(p, kept.AuthToken)
	defer again.close()
	again.must(t, "validate", nil, nil)
	if code, _ := p.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	verified(t, h)
}

func shell(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
