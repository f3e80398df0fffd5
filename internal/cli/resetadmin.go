package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/store/bolt"
)

// firstAdmin is the account that the first start creates.
const firstAdmin = "admin"

func resetAdmin() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reset-admin",
		Short: "Give an administrator a new password",
		Long: `Sets the password of an account in the realm native, for whoever has access to the
data folder of a server that is stopped. The account is enabled, gets the role
admin, and is created if there is none; its sessions end, its API keys stay.

The password is the one in $SESSIOND_ADMIN_PASSWORD, or in the file that
$SESSIOND_ADMIN_PASSWORD_FILE names, or a random one, which is printed once.`,
		Example: `  sessiond reset-admin --data /var/lib/sessiond
  SESSIOND_ADMIN_PASSWORD_FILE=/run/secrets/admin sessiond reset-admin`,
		Args: noArgs,
		RunE: runResetAdmin,
	}
	addConfigFlag(cmd)
	addSettings(cmd, "data")
	cmd.Flags().String("username", firstAdmin, "the account called `NAME`")
	return cmd
}

func runResetAdmin(cmd *cobra.Command, _ []string) error {
	username, _ := cmd.Flags().GetString("username")
	canonical, err := account.Canonical(username)
	if err != nil {
		return usagef("--username: %w", errors.New(api.FromError(err).Message))
	}
	path, err := dataFile(cmd)
	if err != nil {
		return err
	}
	password, err := adminPassword()
	if err != nil {
		return err
	}
	given := !password.IsZero()
	if !given {
		password = api.NewSecret(RandomPassword())
	}
	created, err := resetIn(cmd.Context(), path, username, password)
	if err != nil {
		return err
	}
	if canonical == firstAdmin {
		first := filepath.Join(filepath.Dir(path), PasswordFile)
		if err := os.Remove(first); err != nil && !errors.Is(err, os.ErrNotExist) {
			cmd.PrintErrf("sessiond: the password is set, but the file with the one before could not be removed: %v\n", err)
		}
	}
	done := "The account has a new password, and its sessions have ended."
	if created {
		done = "The account did not exist; it was created."
	}
	if given {
		return printLine(cmd, done)
	}
	return printLine(cmd, done+" Its password is shown this once:\n\n    "+password.Reveal()+"\n")
}

func resetIn(ctx context.Context, path, username string, password api.Secret) (created bool, err error) {
	st, err := bolt.Open(ctx, path, bolt.Options{})
	if err != nil {
		return false, opening(err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	system := clock.NewSystem()
	mark, err := event.Mark(ctx, st)
	if err == nil {
		_, err = system.Resume(mark, false)
	}
	if err != nil {
		return false, fmt.Errorf("%w: set the clock right first", err)
	}
	hasher := account.NewHasher(1, 1)
	defer hasher.Close()
	created, err = account.New(account.Deps{Store: st, Clock: system, Hasher: hasher}).ResetAdmin(ctx, username, password)
	if err != nil {
		return false, fmt.Errorf("reset the account: %w", err)
	}
	return created, nil
}

// opening says what to do about a store that cannot be opened.
func opening(err error) error {
	if errors.Is(err, bolt.ErrLocked) {
		return errors.New("a server uses this data folder: stop it first")
	}
	return err
}
