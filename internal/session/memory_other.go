//go:build !unix

package session

// mapMemory returns zeroed memory that the collector does not scan.
func mapMemory(size int) []byte { return make([]byte, size) }
