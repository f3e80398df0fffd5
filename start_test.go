//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessiond/internal/cli"
	"sessiond/internal/upkeep"
)

// A damaged file is refused within seconds, with where and what to do, and is
// afterwards what it was before.
func TestADamagedFileIsNotServed(t *testing.T) {
	h := newHome(t, services(nil))
	p := h.start(t)
	hire(t, p)
	if code, _ := p.terminate(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.output)
	}
	path := filepath.Join(h.data, cli.DataFile)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		damage func(file []byte) []byte
		want   string
	}{
		"a flipped bit": {func(f []byte) []byte {
			return bytes.ReplaceAll(f, []byte(`"username":"admin"`), []byte(`"username":"admim"`))
		}, "wrong checksum"},
		"cut off":                 {func(f []byte) []byte { return f[:4*4096] }, "the file is cut off"},
		"without its last commit": {func(f []byte) []byte { clear(f[4096:8192]); return f }, "meta page 1 is not sound"},
		"something else":          {func([]byte) []byte { return []byte("a letter to my aunt") }, "neither meta page is sound"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := tt.damage(append([]byte{}, sound...))
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			again := h.launch(t)
			select {
			case <-again.exited:
			case <-time.After(20 * time.Second):
				t.Fatalf("it still runs:\n%s", again.output)
			}
			output := again.output.String()
			if code := again.cmd.ProcessState.ExitCode(); code != 65 || time.Since(begun) > 10*time.Second {
				t.Errorf("exit code %d after %v", code, time.Since(begun))
			}
			for _, want := range []string{tt.want, "nothing was changed", "sessiond verify", "sessiond salvage --out"} {
				if !strings.Contains(output, want) {
					t.Errorf("%q is missing in\n%s", want, output)
				}
			}
			now, err := os.ReadFile(path)
			if err != nil || sha256.Sum256(now) != sha256.Sum256(bad) {
				t.Errorf("the file has changed: %v", err)
			}
		})
	}
}

// What a backup that was killed has left is as large as the data: it does not stay.
func TestAStartRemovesWhatABackupLeft(t *testing.T) {
	h := newHome(t, services(nil))
	const failed = "cut short has left cannot be removed"
	p := h.start(t) // on a folder without backups
	stopped(t, p)
	if strings.Contains(p.output.String(), failed) {
		t.Errorf("without a folder of backups:\n%s", p.output)
	}
	backups := filepath.Join(h.data, upkeep.Folder)
	left, whole := filepath.Join(backups, "nightly.db.new-copy"), filepath.Join(backups, "earlier.db")
	if err := os.Mkdir(backups, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{left, whole} {
		if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stopped(t, h.start(t))
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left: %v", err)
	}
	if _, err := os.Stat(whole); err != nil {
		t.Error(err)
	}
}

// Whoever asks a server that starts is told to come back, and one that is ended
// while it starts ends well.
func TestAStartCanBeStopped(t *testing.T) {
	h := newHome(t, services(nil))
	p := h.launch(t)
	if code, took := p.terminate(); code != 0 && code != -1 { // killed by the signal before it was heard
		t.Errorf("exit code %d after %v:\n%s", code, took, p.output)
	}
}
