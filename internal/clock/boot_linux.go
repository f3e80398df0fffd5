package clock

import (
	"syscall"
	"time"
	"unsafe"
)

// sinceBoot returns what tells for how long the machine is up: CLOCK_BOOTTIME, which
// goes on while it sleeps.
func sinceBoot(begun time.Time) func() int64 {
	const bootTime = 7
	return func() int64 {
		var t syscall.Timespec
		_, _, fault := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, bootTime, uintptr(unsafe.Pointer(&t)), 0) //nolint:gosec // as the kernel wants it
		if fault != 0 {
			return int64(time.Since(begun))
		}
		return t.Nano()
	}
}
