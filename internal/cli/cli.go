// Package cli is the command line: what each subcommand takes, does, prints and
// returns to the shell.
//
// Results go to stdout, everything else (the log, progress, what went wrong) to
// stderr, so that output can be piped. A message says what to do next. Exit codes
// are 0 for ok, 1 for failed, 2 for a command line that cannot be understood, 65
// for damaged data.
//
// What can be said in several places counts in this order: a flag, a variable of
// the environment, services.json, what is built in. No secret is printed, but
// for the password that reset-admin makes up, which is shown once.
package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/store"
)

// Names of files in the data folder.
const (
	DataFile     = "sessiond.db"     // the store
	JournalFile  = "revocations.log" // the journal of revocations, unless services.json names another
	PasswordFile = "admin-password"  // the first password of admin, until it is changed; only where no terminal could show it
)

// The exit codes.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitDamaged = 65 // EX_DATAERR of sysexits.h
)

// Program is the command line: what main cannot know of itself is passed in.
type Program struct {
	Version string
	Serve   func(ctx context.Context, o ServeOptions) error // runs until ctx ends
	Actions func() []dispatch.Description                   // the catalogue, for the reference and for completion

	// Restore puts a backup in the place of a stopped server's data.
	Restore func(ctx context.Context, o RestoreOptions) (*Restored, error)

	// Salvage makes a new store of what is good in a damaged one.
	Salvage func(ctx context.Context, o SalvageOptions) (*Salvaged, error)
}

// ServeOptions are what a server is started with.
type ServeOptions struct {
	Config   *config.Config                 // loaded, with flags and environment applied
	Load     func() (*config.Config, error) // loads it again in the same way, for SIGHUP
	Dir      string                         // data folder
	Out      io.Writer                      // for people: what the terminal shows at the start
	Log      io.Writer                      // for the log
	Terminal bool                           // Out is a terminal
	Password api.Secret                     // of the first account; zero: none was given

	AcceptClock bool // believe the machine's clock, though the data was in use until later
}

// Run executes one command line and returns its exit code. It leaves signals to
// the caller: the end of ctx ends what runs.
func (p *Program) Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	understood := false
	root := p.root()
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	root.SetArgs(append([]string{}, args...)) // nil would mean those of the process
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	strict(root)

	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	_, isUsage := errors.AsType[usageError](err)
	if isUsage || !understood {
		_, _ = fmt.Fprintf(stderr, "%s\nRun %s --help for how it is used.\n", message(err), cmd.CommandPath())
		return exitUsage
	}
	_, _ = fmt.Fprintln(stderr, message(err))
	if errors.Is(err, store.ErrCorrupt) {
		return exitDamaged
	}
	return exitFailed
}

// message is what people read of an error. The faults of a services.json stand
// each on a line that editors can jump to.
func message(err error) string {
	if faults, ok := errors.AsType[*config.Error](err); ok {
		return faults.Error()
	}
	return "sessiond: " + err.Error()
}

// usageError is a command line that says too little, too much or nonsense.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (p *Program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sessiond",
		Short: "A session and API-key server",
		Long: `sessiond is a session and API-key server: programs in any language log in, get
sessions and API keys, and validate and revoke them with JSON over HTTP.

Start one, then talk to it:

  sessiond serve
  sessiond call pingSession`,
		Args:                       known,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:              true, // Run prints them
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
	}
	root.AddCommand(
		p.serve(), p.call(), checkConfig(), resetAdmin(), verify(), p.salvage(), p.backup(), p.restore(), p.compact(), p.version(), p.docs(), hashWorker(), checkWorker(),
	)
	return root
}

// strict makes cobra's own subcommands refuse what they do not know. They
// remember where root writes.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help": // it would explain what is no subcommand with exit code 0
			c.Args = known
			c.Run, c.RunE = nil, helpOn(root)
		case "completion": // likewise, with a text that a shell would then run
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// helpOn shows the help of the subcommand that is named.
func helpOn(root *cobra.Command) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		about, _, err := root.Find(args)
		if err != nil {
			return usageError{err}
		}
		about.InitDefaultHelpFlag()
		return about.Help()
	}
}

// known refuses what follows sessiond and is no subcommand.
func known(cmd *cobra.Command, args []string) error {
	root := cmd.Root()
	if len(args) == 0 || slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == args[0] }) {
		return nil
	}
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("there is no subcommand of that name; did you mean %s?", strings.Join(near, " or "))
	}
	return usagef("there is no subcommand of that name")
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes flags only", cmd.Name())
	}
	return nil
}

// RandomPassword returns a password of 26 letters and digits that nobody can
// guess (130 bits). It needs no quotes in a shell.
func RandomPassword() string { return rand.Text() }

// isTerminal reports whether somebody is looking at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width returns the columns of the terminal that w is, 0 if it is none.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}
