package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"sessiond/internal/account"
	"sessiond/internal/config"
	"sessiond/store/bolt"
)

// RestoreOptions are what a backup is restored with.
type RestoreOptions struct {
	File       string // the backup
	Dir        string // data folder of a server that does not run, with or without data
	Journal    string // of revocations
	Realms     []config.Realm
	AcceptKeys bool // without a journal that can be relied on, API keys live all the same
	DryRun     bool // nothing is changed

	Report bolt.Progress // told how far it is; nil: nobody
}

// Restored says what a restore has done, or would do.
type Restored struct {
	DryRun          bool                      `json:"dryRun"`
	LogHead         string                    `json:"logHead"`           // of the backup
	LastChange      time.Time                 `json:"lastChange"`        // in the backup; zero: it has none
	Keys            string                    `json:"keys"`              // journal, ended or accepted: what decided about API keys
	Journal         string                    `json:"journal,omitempty"` // why the journal decided nothing
	Kept            string                    `json:"kept,omitempty"`    // where the data is that was there
	SessionsEnded   int64                     `json:"sessionsEnded"`
	KeysEnded       int64                     `json:"keysEnded"`
	KeysRotated     int64                     `json:"keysRotated"` // of KeysEnded: their tokens had been replaced
	KeysLiving      int64                     `json:"keysLiving"`
	Accounts        []account.RecalledAccount `json:"accounts"` // that lost what they had lost since the backup
	Roles           []string                  `json:"roles"`    // likewise
	NoAdministrator bool                      `json:"noAdministrator"`
}

func (p *Program) restore() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the data of a stopped server",
		Long: `Checks a backup and puts a copy of it in the place of the data of a stopped server.
What was there is kept beside it. Where anything fails, nothing has changed.

A backup is of the past: what was revoked since lives in it. So

- all sessions end,
- API keys live on but for those that were ended or rotated since, and accounts and
  roles do not get back what was taken from them since, as far as the journal of
  revocations in the data folder knows that; a password that was replaced since is
  good no more, and an account that was dropped since is disabled,
- without a journal that covers all the time since the backup, all API keys end,
  unless --accept-resurrected-keys is given.

On a new machine, put revocations.log of the old one into the data folder first.`,
		Example: `  sessiond restore --dry-run /var/lib/sessiond/backups/nightly.db
  sessiond restore --data /var/lib/sessiond --yes /mnt/nightly.db`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("restore takes the file of one backup")
			}
			return nil
		},
		RunE: p.runRestore,
	}
	addConfigFlag(cmd)
	addSettings(cmd, "data")
	addOutput(cmd, formatTable, formatJSON)
	f := cmd.Flags()
	f.Bool("accept-resurrected-keys", false, "without a usable journal let all API keys live, those too that were revoked since")
	f.Bool("dry-run", false, "tell what would be, and change nothing; the server must be stopped for it, too")
	f.Bool("yes", false, "do not ask")
	return cmd
}

func (p *Program) runRestore(cmd *cobra.Command, args []string) error {
	format, err := output(cmd, formatTable)
	if err != nil {
		return err
	}
	o, err := restoreOptions(cmd, args[0])
	if err != nil {
		return err
	}
	if err := agreed(cmd, o); err != nil {
		return err
	}
	var wipe func()
	o.Report, wipe = progress(cmd)
	done, err := p.Restore(cmd.Context(), *o)
	wipe()
	if err != nil {
		return opening(err)
	}
	if format == formatJSON {
		return printJSON(cmd, done)
	}
	return printLine(cmd, done.text(o))
}

func restoreOptions(cmd *cobra.Command, file string) (*RestoreOptions, error) {
	s, err := sourceOf(cmd, "")
	if err != nil {
		return nil, err
	}
	c, err := s.load()
	if err != nil {
		return nil, err
	}
	if c.Storage.Type != "bolt" {
		return nil, errors.New("services.json keeps the data in memory: there is nothing to restore to")
	}
	o := &RestoreOptions{File: file, Dir: c.Storage.Dir, Journal: JournalPath(c), Realms: c.Realms}
	if info, err := os.Stat(o.Dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("there is no folder %s: make it, or name another with --data", o.Dir)
	}
	if err := isBackup(file); err != nil {
		return nil, err
	}
	o.AcceptKeys, _ = cmd.Flags().GetBool("accept-resurrected-keys")
	o.DryRun, _ = cmd.Flags().GetBool("dry-run")
	return o, nil
}

// isBackup says what is wrong with the name of a backup.
func isBackup(file string) error {
	switch info, err := os.Stat(file); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no backup %s", file)
	case err == nil && !info.Mode().IsRegular(): // opening a pipe would wait for ever
		return fmt.Errorf("%s is no file: name the file of a backup", file)
	}
	return nil
}

// JournalPath returns where the journal of revocations is.
func JournalPath(c *config.Config) string {
	if c.Storage.RevocationLog != "" {
		return c.Storage.RevocationLog
	}
	return filepath.Join(c.Storage.Dir, JournalFile)
}

// agreed asks whoever sits there, unless there is nothing to ask.
func agreed(cmd *cobra.Command, o *RestoreOptions) error {
	yes, _ := cmd.Flags().GetBool("yes")
	if yes || o.DryRun {
		return nil
	}
	if in, ok := cmd.InOrStdin().(*os.File); !ok || !isTerminal(in) {
		return usagef("restore replaces the data in %s: add --yes, or --dry-run to see what would be", o.Dir)
	}
	cmd.PrintErrf("This replaces the data in %s. Type yes to go on: ", o.Dir)
	line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // without an answer it is no
	if strings.TrimSpace(line) != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// text is what people read of it.
func (r *Restored) text(o *RestoreOptions) string {
	var b strings.Builder
	if r.DryRun {
		b.WriteString("This would be restored; nothing was changed.\n\n")
	} else {
		b.WriteString("The backup is restored.\n\n")
	}
	last := "none"
	if !r.LastChange.IsZero() {
		last = r.LastChange.Format(time.RFC3339)
	}
	ended := strconv.FormatInt(r.KeysEnded, 10)
	if r.KeysRotated > 0 {
		ended += fmt.Sprintf(", of which %d had got another token", r.KeysRotated)
	}
	b.WriteString(draw(nil, []table.Row{
		{"last change in it", last},
		{"log head", r.LogHead},
		{"sessions ended", r.SessionsEnded},
		{"API keys ended", ended},
		{"API keys that live on", r.KeysLiving},
	}))
	b.WriteString("\n\n" + r.decision(o.Journal) + "\n")
	if len(r.Accounts) > 0 {
		var rows []table.Row
		for _, a := range r.Accounts {
			lost := strings.Join(a.Lost, ", ")
			if a.Dropped {
				lost += " (dropped since)"
			}
			rows = append(rows, table.Row{printable(a.Realm), printable(a.Username), lost})
		}
		b.WriteString("\n" + draw(table.Row{"realm", "account", "does not get back"}, rows) + "\n")
	}
	if len(r.Roles) > 0 {
		b.WriteString("\nRoles that lost permissions, or are gone: " + strings.Join(r.Roles, ", ") + "\n")
	}
	for _, step := range r.next(o) {
		b.WriteString("\n" + step)
	}
	return b.String()
}

func (r *Restored) decision(journal string) string {
	doubt := r.Journal + " (" + journal + ")"
	switch r.Keys {
	case "journal":
		return "The journal of revocations decided. What was revoked after its last line is not known to it: make sure\nthat it is no old copy."
	case "accepted":
		return "Nothing is known of what was revoked since the backup: " + doubt + ".\nAll API keys of the backup live, those too that were revoked since."
	}
	return "Nothing is known of what was revoked since the backup: " + doubt + ".\nSo all API keys have ended; --accept-resurrected-keys would let them live."
}

// next is what to do then.
func (r *Restored) next(o *RestoreOptions) []string {
	var steps []string
	if slices.ContainsFunc(r.Accounts, func(a account.RecalledAccount) bool { return slices.Contains(a.Lost, "password") }) {
		steps = append(steps, "The password of the accounts above that lost theirs was replaced since the backup: nobody can log in to\nthem until alterAccount sets a new one.")
	}
	if r.Keys != "journal" {
		steps = append(steps, "Passwords are those of the backup. Look after accounts that were disabled or dropped, and roles and\npasswords that were changed since.")
	}
	if r.NoAdministrator {
		steps = append(steps, "No administrator can log in: run sessiond reset-admin.")
	}
	if r.Kept != "" {
		steps = append(steps, "The data that was there is kept as "+r.Kept+": remove it when it is needed no more.")
	}
	if r.DryRun {
		return append(steps, "Run it again with --yes in place of --dry-run.")
	}
	return append(steps, "Now start the server on "+o.Dir+".")
}
