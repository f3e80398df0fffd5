package store

import "errors"

// attempts is how often a change is tried that loses its races.
const attempts = 16

// Retry makes a change, which reads before it commits, again as long as others
// change the same thing meanwhile. A change that loses every time ends with
// ErrConflict.
func Retry(change func() error) error {
	for range attempts {
		if err := change(); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}
