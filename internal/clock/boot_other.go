//go:build !linux

package clock

import "time"

// sinceBoot returns what tells for how long the machine is up, as well as it is known.
func sinceBoot(begun time.Time) func() int64 {
	return func() int64 { return int64(time.Since(begun)) }
}
