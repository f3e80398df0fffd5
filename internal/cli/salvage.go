package cli

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"sessiond/store/bolt"
)

// SalvageOptions say what is to be salvaged.
type SalvageOptions struct {
	File, Out string
	Report    bolt.Progress // told how far it is; nil: nobody
}

// Salvaged says what a salvage has done.
type Salvaged struct {
	Out      string            `json:"out"`
	Complete bool              `json:"complete"` // nothing is missing: all is as it was committed last
	Damage   string            `json:"damage,omitempty"`
	Kept     map[string]uint64 `json:"kept"`
	Expected uint64            `json:"expected"` // values in all; 0: the file does not know any more
	Doubtful map[string]uint64 `json:"doubtful"` // of those kept: they may have been replaced or deleted
	Lost     []string          `json:"lost"`     // ranges of keys that were damaged, found elsewhere or not
	LogWhole bool              `json:"logWhole"`
	Ended    int64             `json:"ended"`    // sessions and keys of which nobody knows whether they had ended
	Disabled []string          `json:"disabled"` // accounts that may be of the past
	Roles    int64             `json:"rolesDropped"`
	LogHead  string            `json:"logHead"`
}

func (p *Program) salvage() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "salvage --out FILE",
		Short: "Save what is intact of damaged data",
		Long: `Reads the damaged data of a stopped server, changes nothing there, and writes a new
store of all records that are intact: those that it still leads to, and those that it
has lost the way to. It tells how many of each kind were kept and which were lost.

If not all is there, what cannot be decided is ended: a session or an API key lives on
only if nothing that could have ended it is missing, or if the log of changes is whole
and has its creation and no end. Accounts of which only an older record may be left
are disabled, such roles dropped. Where the log has a hole, it begins behind it.

FILE must not exist; a folder gets a file called sessiond.db. Put it in place of the
damaged one while the server is stopped, or give it to sessiond restore, which also
ends what the journal of revocations knows to have ended.`,
		Example: `  sessiond salvage --data /var/lib/sessiond --out /mnt/salvaged.db
  sessiond salvage --out /mnt --output json`,
		Args: noArgs,
		RunE: p.runSalvage,
	}
	addConfigFlag(cmd)
	addSettings(cmd, "data")
	addOutput(cmd, formatTable, formatJSON)
	cmd.Flags().String("out", "", "write the new store to `FILE`, or into that folder")
	return cmd
}

func (p *Program) runSalvage(cmd *cobra.Command, _ []string) error {
	format, err := output(cmd, formatTable)
	if err != nil {
		return err
	}
	out, name := said(cmd, "out", "")
	if name == "" || out == "" {
		return usagef("name a new file with --out")
	}
	o := SalvageOptions{Out: out}
	if o.File, err = dataFile(cmd); err != nil {
		return err
	}
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		o.Out = filepath.Join(out, DataFile)
	}
	if _, err := os.Stat(o.Out); err == nil {
		return fmt.Errorf("%s is there already: name a new file with --out", o.Out)
	}
	var wipe func()
	o.Report, wipe = progress(cmd)
	done, err := p.Salvage(cmd.Context(), o)
	wipe()
	if err != nil {
		return opening(err)
	}
	if format == formatJSON {
		return printJSON(cmd, done)
	}
	return printLine(cmd, done.text())
}

func (s *Salvaged) text() string {
	var kinds []table.Row
	total := uint64(0)
	for _, kind := range slices.Sorted(maps.Keys(s.Kept)) {
		kinds = append(kinds, table.Row{kind, s.Kept[kind], s.Doubtful[kind]})
		total += s.Kept[kind]
	}
	var b strings.Builder
	b.WriteString(draw(table.Row{"kind", "kept", "in doubt"}, kinds) + "\n\n")
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if s.Damage != "" {
		say("The damage: %s", s.Damage)
	} else {
		say("The data is sound: there was nothing to salvage.")
	}
	switch {
	case s.Complete:
		say("All is there: %d values, as they were committed last.", total)
	case s.Expected > 0:
		say("%d values were kept; there were %d.", total, s.Expected)
	default:
		say("%d values were kept; nobody knows how many there were.", total)
	}
	if !s.LogWhole {
		say("The log of changes is not whole: it goes back to its last hole.")
	}
	if !s.Complete {
		say("Ended, as nobody knows whether they lived: %d sessions and API keys.", s.Ended)
		for _, name := range s.Disabled {
			say("Disabled, as it may be of the past: %s", name)
		}
		if s.Roles > 0 {
			say("Roles dropped, as they may be of the past: %d.", s.Roles)
		}
		for _, l := range s.Lost {
			say("Damaged: %s", l)
		}
	}
	say("log head  %s", s.LogHead)
	b.WriteString("\n" + s.Out + " is a sound store. Put it in place of the damaged one, or give it to sessiond restore.")
	return b.String()
}
