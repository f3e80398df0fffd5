//go:build unix

package session

import "syscall"

const adviseHugePages = 14 // MADV_HUGEPAGE on Linux; elsewhere a hint that is refused

// mapMemory returns zeroed memory that the collector neither scans nor counts.
func mapMemory(size int) []byte {
	b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, size)
	}
	_ = syscall.Madvise(b, adviseHugePages)
	return b
}
