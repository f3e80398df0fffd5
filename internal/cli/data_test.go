package cli_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/cli"
	"sessiond/internal/clock"
	"sessiond/store"
	"sessiond/store/bolt"
)

const password = "correct horse battery staple"

func TestResetAdmin(t *testing.T) {
	for name, tt := range map[string]struct {
		args, variable string
		want           int
		stdout, stderr string // regular expressions
		account        string
	}{
		"a random password":    {"", "", 0, `^The account has a new password, and its sessions have ended\. Its password is shown this once:\n\n    [A-Z2-7]{26}\n\n$`, `^$`, "admin"},
		"a given password":     {"", password, 0, `^The account has a new password, and its sessions have ended\.\n$`, `^$`, "admin"},
		"another account":      {"--username Root", password, 0, `^The account did not exist; it was created\.\n$`, `^$`, "root"},
		"a password too short": {"", "secret-a", 1, `^$`, `^sessiond: reset the account: 21104 a password has at least 15 characters\n$`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dataFolder(t)
			write(t, filepath.Join(dir, cli.PasswordFile), "the first one\n")
			t.Setenv("SESSIOND_ADMIN_PASSWORD", tt.variable)
			code, stdout, stderr := run(t, program(), "", append([]string{"reset-admin", "--data", dir}, strings.Fields(tt.args)...)...)
			if code != tt.want || !regexp.MustCompile(tt.stdout).MatchString(stdout) || !regexp.MustCompile(tt.stderr).MatchString(stderr) {
				t.Fatalf("exit code %d\nstdout: %s\nstderr: %s", code, stdout, stderr)
			}
			_, err := os.Stat(filepath.Join(dir, cli.PasswordFile))
			if kept := err == nil; kept != (tt.account != "admin") {
				t.Errorf("the file with the first password is kept: %v", kept)
			}
			if tt.account == "" {
				return
			}
			given := tt.variable
			if given == "" {
				given = regexp.MustCompile(`[A-Z2-7]{26}`).FindString(stdout)
			}
			if a := login(t, dir, tt.account, given); !slices.Contains(a.Roles, account.RoleRef{Name: "admin"}) {
				t.Errorf("the account has the roles %v", a.Roles)
			}
		})
	}
}

func TestCommandsForAStoppedServer(t *testing.T) {
	dir := dataFolder(t)
	st := open(t, dir)
	for _, command := range []string{"reset-admin", "verify"} {
		code, _, stderr := run(t, program(), "", command, "--data", dir)
		if code != 1 || stderr != "sessiond: a server uses this data folder: stop it first\n" {
			t.Errorf("%s beside a server: exit code %d: %s", command, code, stderr)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	write(t, "services.json", `{"storage": {"dir": "`+dir+`"}}`)
	if code, _, stderr := run(t, program(), "", "verify"); code != 0 {
		t.Errorf("the folder that services.json names: exit code %d: %s", code, stderr)
	}
	write(t, "services.json", `{"storage": {"type": "memory"}}`)
	if code, _, stderr := run(t, program(), "", "verify"); code != 1 || !strings.Contains(stderr, "keeps the data in memory") {
		t.Errorf("data in memory: exit code %d: %s", code, stderr)
	}
}

func TestVerify(t *testing.T) {
	dir := dataFolder(t)
	heads := append(fill(t, dir, "a", "b"), fill(t, dir, "c")...)
	first, last := heads[0], heads[len(heads)-1]
	code, stdout, stderr := run(t, program(), "", "verify", "--data", dir)
	want := `^kind  values
acct       1
log        4

bytes     \d+ in a file of \d+
format    2
revision  4
log head  ` + text(last) + `

OK: the data is sound\.
$`
	if code != 0 || !regexp.MustCompile(want).MatchString(stdout) || stderr != "" {
		t.Errorf("exit code %d\nstdout:\n%s\nwant\n%s\nstderr: %s", code, stdout, want, stderr)
	}
	if code, stdout, _ := run(t, program(), "", "verify", "--data", dir, "--output", "json"); code != 0 ||
		!strings.Contains(stdout, `"logHead": "`+text(last)+`"`) || !strings.Contains(stdout, `"acct": 1,`) {
		t.Errorf("exit code %d: %s", code, stdout)
	}

	other := first
	other.Hash[0]++
	replaced := last
	replaced.Hash[0]++
	beyond := last
	beyond.Seq++
	for name, tt := range map[string]struct {
		head     store.Head
		want     int
		inStderr string
	}{
		"the present head":         {last, 0, ""},
		"an earlier one":           {first, 0, ""},
		"an earlier one, replaced": {other, 65, fmt.Sprintf("position %d of the log is not what was noted", first.Seq)},
		"the present, replaced":    {replaced, 65, "its history was replaced"},
		"one beyond the end":       {beyond, 65, "its end was cut off, or this is an older copy"},
	} {
		if code, _, stderr := run(t, program(), "", "verify", "--data", dir, "--head", text(tt.head)); code != tt.want || !strings.Contains(stderr, tt.inStderr) {
			t.Errorf("%s: exit code %d: %s", name, code, stderr)
		}
	}

	purge(t, dir, first)
	if code, _, stderr := run(t, program(), "", "verify", "--data", dir, "--head", text(first)); code != 0 {
		t.Errorf("the last that was purged: exit code %d: %s", code, stderr)
	}
	older := store.Head{Seq: first.Seq - 1}
	if code, _, stderr := run(t, program(), "", "verify", "--data", dir, "--head", text(older)); code != 1 ||
		!strings.Contains(stderr, "the log was purged beyond it; note the present one, "+text(last)) {
		t.Errorf("one that was purged: exit code %d: %s", code, stderr)
	}
}

// A restore goes on far beyond what it undoes: a head that was noted there is gone.
func TestVerifyOfARestoredLog(t *testing.T) {
	dir := dataFolder(t)
	kept := fill(t, dir, "a", "b")
	st, err := bolt.Open(t.Context(), filepath.Join(dir, cli.DataFile), bolt.Options{Beyond: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Commit(t.Context(), store.Tx{Append: [][]byte{[]byte("restored")}}); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	undone := store.Head{Seq: kept[1].Seq + 5, Hash: kept[1].Hash}
	check := func(noted store.Head, want int, inStderr string) {
		t.Helper()
		if code, _, stderr := run(t, program(), "", "verify", "--data", dir, "--head", text(noted)); code != want || !strings.Contains(stderr, inStderr) {
			t.Errorf("%s: exit code %d, want %d: %s", text(noted), code, want, stderr)
		}
	}
	const gone = "is not what was noted: a restore has undone it (an event storeRestored says so), or its history was replaced"
	check(kept[1], 0, "")
	check(undone, 65, gone)
	check(store.Head{Seq: undone.Seq}, 65, gone)
	purge(t, dir, kept[0])
	check(undone, 65, gone)
	check(store.Head{Seq: kept[0].Seq - 1}, 1, "the log was purged beyond it")
}

func TestVerifyFindsDamage(t *testing.T) {
	dir := dataFolder(t)
	path := filepath.Join(dir, cli.DataFile)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(content), `"username"`)
	if at < 0 {
		t.Fatal("the record of the account is not in the file")
	}
	content[at+3] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"verify", "reset-admin"} {
		if code, stdout, stderr := run(t, program(), "", command, "--data", dir); code != 65 || stdout != "" || !strings.Contains(stderr, "damaged data") {
			t.Errorf("%s: exit code %d: %s%s", command, code, stdout, stderr)
		}
	}
}

// dataFolder is that of a server which has the account admin, whose password
// nobody knows.
func dataFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	st := open(t, dir)
	h := account.NewHasherCost(1, 1, account.Cost{MemoryKiB: 8, Iterations: 1, Parallelism: 1})
	defer h.Close()
	d := account.New(account.Deps{Store: st, Clock: clock.NewFake(time.Unix(1_700_000_000, 0)), Hasher: h})
	if _, err := d.ResetAdmin(t.Context(), "admin", api.NewSecret(cli.RandomPassword())); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string) *bolt.Store {
	t.Helper()
	st, err := bolt.Open(t.Context(), filepath.Join(dir, cli.DataFile), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func login(t *testing.T, dir, username, password string) *account.Account {
	t.Helper()
	st := open(t, dir)
	h := account.NewHasher(1, 1)
	defer h.Close()
	a, err := account.New(account.Deps{Store: st, Clock: clock.NewSystem(), Hasher: h}).Verify(t.Context(), "native", username, api.NewSecret(password), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fill appends entries to the log and returns its head after each.
func fill(t *testing.T, dir string, entries ...string) []store.Head {
	t.Helper()
	st := open(t, dir)
	var heads []store.Head
	for _, e := range entries {
		if _, err := st.Commit(t.Context(), store.Tx{Append: [][]byte{[]byte(e)}}); err != nil {
			t.Fatal(err)
		}
		last, err := store.ReadLogBack(t.Context(), st, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, store.Head{Seq: last[0].Seq, Hash: last[0].Hash})
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return heads
}

// purge takes all entries up to a head out of the log.
func purge(t *testing.T, dir string, until store.Head) {
	t.Helper()
	st := open(t, dir)
	tx := store.Tx{Put: []store.Put{{Key: store.AnchorKey, Value: until.Encode()}}}
	for seq := uint64(1); seq <= until.Seq; seq++ {
		tx.Delete = append(tx.Delete, store.LogKey(seq))
	}
	if _, err := st.Commit(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func text(h store.Head) string { return fmt.Sprintf("%d:%s", h.Seq, hex.EncodeToString(h.Hash[:])) }

// What decided about API keys, and what it cannot know.
func TestRestoreSaysWhatDecided(t *testing.T) {
	dir := dataFolder(t)
	for keys, want := range map[string]string{
		"journal":  "What was revoked after its last line is not known to it: make sure\nthat it is no old copy.\n",
		"ended":    "So all API keys have ended",
		"accepted": "All API keys of the backup live",
	} {
		p := program()
		p.Restore = func(context.Context, cli.RestoreOptions) (*cli.Restored, error) {
			return &cli.Restored{Keys: keys, Journal: "it is missing"}, nil
		}
		code, stdout, stderr := run(t, p, "", "restore", "--data", dir, "--yes", filepath.Join(dir, cli.DataFile))
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit code %d, %q is missing in\n%s%s", keys, code, want, stdout, stderr)
		}
	}
}
