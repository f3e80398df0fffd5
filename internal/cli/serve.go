package cli

import (
	"github.com/spf13/cobra"
)

func (p *Program) serve() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Runs the server until it gets SIGINT or SIGTERM; then it finishes what it has
begun. SIGHUP makes it read services.json again. No file and no flag is needed:
without any it serves http://127.0.0.1:8080/api and keeps its data in ./data.

The first start creates the account admin. Its password is the one in
$SESSIOND_ADMIN_PASSWORD, or in the file that $SESSIOND_ADMIN_PASSWORD_FILE names,
or a random one, which the terminal shows once; where there is no terminal it is
in DIR/admin-password until it is changed.

A flag comes before its variable, that before services.json.`,
		Example: `  sessiond serve
  sessiond serve --config services.json --data /var/lib/sessiond
  sessiond serve --listen 127.0.0.1:9000 --log-level debug`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := sourceOf(cmd, "")
			if err != nil {
				return err
			}
			c, err := from.load()
			if err != nil {
				return err
			}
			password, err := adminPassword()
			if err != nil {
				return err
			}
			accept, _ := cmd.Flags().GetBool("accept-clock")
			return p.Serve(cmd.Context(), ServeOptions{
				AcceptClock: accept,
				Config:      c, Load: from.load, Dir: c.Storage.Dir, Password: password,
				Out: cmd.OutOrStdout(), Log: cmd.ErrOrStderr(), Terminal: isTerminal(cmd.OutOrStdout()),
			})
		},
	}
	addConfigFlag(cmd)
	addSettings(cmd)
	cmd.Flags().Bool("accept-clock", false, "believe this machine's clock for once, though the data was in use until later")
	return cmd
}

func checkConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check-config [FILE]",
		Short: "Say whether a services.json is right",
		Long: `Reads a services.json as the server would, with what flags and the environment
put before it, and prints OK and its warnings, or every fault as

  FILE:LINE:COLUMN: POINTER: what is wrong and what to do

Without FILE it is the one that the server would read. The exit code is 1 if there
are faults.`,
		Example: `  sessiond check-config
  sessiond check-config /etc/sessiond/services.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("check-config reads one file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var path string
			if len(args) > 0 {
				path = args[0]
			}
			from, err := sourceOf(cmd, path)
			if err != nil {
				return err
			}
			c, err := from.load()
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				cmd.PrintErrln("warning: " + w)
			}
			return printLine(cmd, "OK")
		},
	}
	addSettings(cmd)
	return cmd
}
