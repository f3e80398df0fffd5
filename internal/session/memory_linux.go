package session

import "syscall"

// mapMemory returns zeroed memory that the collector neither scans nor counts, in
// huge pages if all of it will be used.
func mapMemory(size int, huge bool) []byte {
	b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, size)
	}
	if huge {
		_ = syscall.Madvise(b, syscall.MADV_HUGEPAGE) // a hint, which may be refused
	}
	return b
}

// unmapMemory gives memory of mapMemory back.
func unmapMemory(b []byte) { _ = syscall.Munmap(b) } // refused for what the collector owns
