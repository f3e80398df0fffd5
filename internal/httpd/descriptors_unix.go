//go:build unix

package httpd

import "syscall"

// descriptors returns how many connections the process has file descriptors for,
// leaving some for everything else.
func descriptors() int {
	const others, most = 512, 1 << 20
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	n := int(min(limit.Cur, most))
	return max(n-others, n/2, 1)
}
