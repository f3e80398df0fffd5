//go:build !linux

package session

// mapMemory returns zeroed memory that the collector does not scan.
func mapMemory(size int, _ bool) []byte { return make([]byte, size) }

// unmapMemory leaves it to the collector.
func unmapMemory([]byte) {}
