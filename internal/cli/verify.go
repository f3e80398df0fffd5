package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"sessiond/store"
	"sessiond/store/bolt"
)

func verify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check the data of a stopped server, or a backup",
		Long: `Reads all data of a stopped server, or FILE, which may be a backup or another copy of
it, changes nothing, and checks every record and the chain of the log. It prints what it has counted and the head of the log.

Note the head elsewhere: who can write the data folder could replace the log by one
that is sound in itself. --head compares with one noted earlier, which must be in the
chain still, at its place.

The exit code is 65 if the data is damaged, or is not what the noted head says.`,
		Example: `  sessiond verify --data /var/lib/sessiond
  sessiond verify --output json
  sessiond verify /mnt/backups/nightly.db
  sessiond verify --head 1042:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usagef("verify takes one file")
			case len(args) == 1 && cmd.Flags().Changed("data"):
				return usagef("name a file to verify or a folder with --data, not both")
			}
			return nil
		},
		RunE: runVerify,
	}
	addConfigFlag(cmd)
	addSettings(cmd, "data")
	addOutput(cmd, formatTable, formatJSON)
	cmd.Flags().String("head", "", "compare with the head `SEQ:HEX` that was noted earlier")
	return cmd
}

func runVerify(cmd *cobra.Command, args []string) error {
	format, err := output(cmd, formatTable)
	if err != nil {
		return err
	}
	var noted store.Head
	if text, name := said(cmd, "head", ""); name != "" {
		if noted, err = parseHead(text); err != nil {
			return err
		}
	}
	var path string
	if len(args) == 1 {
		path, err = args[0], isBackup(args[0])
	} else {
		path, err = dataFile(cmd)
	}
	if err != nil {
		return err
	}
	report, wipe := progress(cmd)
	sum, err := bolt.Verify(cmd.Context(), path, report)
	wipe()
	if err != nil {
		return opening(err)
	}
	if noted != (store.Head{}) {
		if err := contains(cmd.Context(), path, sum.Head, noted); err != nil {
			return err
		}
	}
	if format == formatJSON {
		return printJSON(cmd, &struct {
			Sound     bool              `json:"sound"`
			Values    map[string]uint64 `json:"values"`
			Bytes     int64             `json:"bytes"`
			FileBytes int64             `json:"fileBytes"`
			Format    int               `json:"dataFormat"`
			Revision  uint64            `json:"revision"`
			LogHead   string            `json:"logHead"`
		}{true, sum.Kinds, sum.Bytes, sum.Size, sum.Format, uint64(sum.Rev), sum.Head.String()})
	}
	var kinds []table.Row
	for _, kind := range slices.Sorted(maps.Keys(sum.Kinds)) {
		kinds = append(kinds, table.Row{kind, sum.Kinds[kind]})
	}
	return printLine(cmd, draw(table.Row{"kind", "values"}, kinds)+"\n\n"+draw(nil, []table.Row{
		{"bytes", fmt.Sprintf("%d in a file of %d", sum.Bytes, sum.Size)},
		{"format", strconv.Itoa(sum.Format)},
		{"revision", strconv.FormatUint(uint64(sum.Rev), 10)},
		{"log head", sum.Head.String()},
	})+"\n\nOK: the data is sound.")
}

// Remedy is what to do about a store that is damaged.
const Remedy = "sessiond verify tells the same of a backup or a copy; sessiond salvage --out FILE saves what is intact into a new store"

// progress returns what tells somebody who looks how far it is, and what wipes
// that away.
func progress(cmd *cobra.Command) (report bolt.Progress, wipe func()) {
	if !isTerminal(cmd.ErrOrStderr()) {
		return nil, func() {}
	}
	const clearLine = "\r\x1b[K"
	return func(done, total uint64) { cmd.PrintErrf(clearLine+"%d %%", done*100/max(1, total)) }, func() { cmd.PrintErr(clearLine) }
}

func parseHead(text string) (store.Head, error) {
	var h store.Head
	seq, digits, _ := strings.Cut(text, ":")
	n, errSeq := strconv.ParseUint(seq, 10, 64)
	hash, errHash := hex.DecodeString(digits)
	if errSeq != nil || errHash != nil || len(hash) != len(h.Hash) || n == 0 {
		return h, usagef("--head is SEQ:HEX, as verify prints it: a number above 0, a colon and %d digits", 2*len(h.Hash))
	}
	h.Seq = n
	copy(h.Hash[:], hash)
	return h, nil
}

// contains says whether a noted head is in a sound chain that ends at head.
func contains(ctx context.Context, path string, head, noted store.Head) error {
	at := head
	if noted.Seq < head.Seq {
		var err error
		if at, err = entryAt(ctx, path, noted.Seq); err != nil {
			return err
		}
	}
	switch {
	case noted.Seq > head.Seq:
		return fmt.Errorf("%w: the log ends at position %d, before the noted head: its end was cut off, or this is an older copy", store.ErrCorrupt, head.Seq)
	case at.Seq != noted.Seq:
		return fmt.Errorf("the noted head cannot be compared: the log was purged beyond it; note the present one, %s", head.String())
	case at == store.Head{Seq: noted.Seq}:
		return fmt.Errorf("%w: position %d of the log is not what was noted: a restore has undone it (an event storeRestored says so), or its history was replaced", store.ErrCorrupt, noted.Seq)
	case at.Hash != noted.Hash:
		return fmt.Errorf("%w: position %d of the log is not what was noted: its history was replaced", store.ErrCorrupt, noted.Seq)
	}
	return nil
}

// entryAt returns the place of the entry at a position, the zero Head if it was
// purged, or one without a hash if nothing was purged there: a restore leaves
// positions out.
func entryAt(ctx context.Context, path string, seq uint64) (h store.Head, err error) {
	st, err := bolt.Open(ctx, path, bolt.Options{ReadOnly: true})
	if err != nil {
		return h, opening(err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	entries, err := store.ReadLog(ctx, st, seq-1, 1)
	if err != nil {
		return h, fmt.Errorf("read the log: %w", err)
	}
	if len(entries) > 0 && entries[0].Seq == seq {
		return store.Head{Seq: seq, Hash: entries[0].Hash}, nil
	}
	// What was purged last is still known by its hash.
	item, err := st.Get(ctx, store.AnchorKey)
	if errors.Is(err, store.ErrNotFound) {
		return store.Head{Seq: seq}, nil
	}
	if err != nil {
		return h, fmt.Errorf("read the log's anchor: %w", err)
	}
	anchor, err := store.DecodeHead(item.Value)
	switch {
	case err != nil || anchor.Seq > seq:
		return store.Head{}, err
	case anchor.Seq < seq:
		return store.Head{Seq: seq}, nil
	}
	return anchor, nil
}
