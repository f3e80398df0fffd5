package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/logging"
)

// FirstAdmin makes the first account, with a password of its own: nobody ever
// logs in with one that others know too.
type FirstAdmin struct {
	Dir   string    // the data folder
	Out   io.Writer // for people
	Log   *logging.Logger
	Shown bool // a password that is made up is shown on Out; else it goes into a file
}

const adminName = "admin"

// Create makes the account admin, if the realm native has no account yet, with
// the given password or else a random one, and says how to log in at url.
func (f *FirstAdmin) Create(ctx context.Context, accounts *account.Directory, password api.Secret, url string) error {
	some, _, err := accounts.List(ctx, config.Native, nil, "", 1)
	if err != nil || len(some) > 0 {
		return err
	}
	given := !password.IsZero()
	if !given {
		password = api.NewSecret(RandomPassword())
		if !f.Shown {
			if err := f.write(password); err != nil {
				return err
			}
		}
	}
	_, err = accounts.Create(ctx, event.Actor{}, account.NewAccount{Realm: config.Native, Username: adminName, Roles: []string{"admin"}, Password: password})
	if err != nil {
		if !given {
			f.Forget(config.Native, adminName)
		}
		return fmt.Errorf("create the first account: %w", err)
	}
	f.tell(password, given, url)
	return nil
}

func (f *FirstAdmin) tell(password api.Secret, given bool, url string) {
	switch {
	case given:
		_, _ = fmt.Fprintf(f.Out, "\nThe account admin was created with the password from the environment. Try it:\n\n%s\n\n", tryIt(url, `'"$SESSIOND_ADMIN_PASSWORD"'`))
	case f.Shown:
		_, _ = fmt.Fprintf(f.Out, "\nThe account admin was created. Its password is shown this once:\n\n    %s\n\nTry it:\n\n%s\n\n", password.Reveal(), tryIt(url, password.Reveal()))
	default:
		f.Log.Warn("the first account was created; its password is in the data folder until it is changed", logging.Str("file", f.path()))
	}
}

func tryIt(url, password string) string {
	return "curl -s " + url + ` -d '{"action":"createSession","params":{"username":"admin","password":"` + password + `"},"debug":"max"}'`
}

func (f *FirstAdmin) path() string { return filepath.Join(f.Dir, PasswordFile) }

func (f *FirstAdmin) write(password api.Secret) error {
	if err := os.Remove(f.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write the first password: %w", err)
	}
	file, err := os.OpenFile(f.path(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the first password: %w", err)
	}
	_, err = file.WriteString(password.Reveal() + "\n")
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write the first password: %w", err)
	}
	return nil
}

// Forget removes the file with the first password: it is told of each account
// whose password was changed.
func (f *FirstAdmin) Forget(realm, username string) {
	if canonical, err := account.Canonical(username); err != nil || realm != config.Native || canonical != adminName {
		return
	}
	if err := os.Remove(f.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.Log.Error("the file with the first password could not be removed", logging.Err(err))
	}
}
