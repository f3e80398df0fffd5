// Package faultfs is a file system for tests whose power can be cut and whose
// calls can be made to fail. It needs Linux, FUSE and root. Only tests import it.
//
// It holds its files in memory twice: as they were written, which is what
// whoever uses them reads, and as they would be found after a power cut. What is
// written becomes durable by a sync alone: the contents and the size of a file by
// its fsync or fdatasync, the names in a folder by an fsync of the folder. A file
// whose name is not durable is gone, however often it was synced itself; real file
// systems are more lenient, but promise no more. Changes of names become durable
// in their order, and a rename in one piece.
//
// A sync that fails drops what it was to make durable, as ext4 does: reading still
// shows it, the next sync succeeds, but it never becomes durable unless it is
// written again.
//
// A test that serves a file system must not map its files itself, nor hold them open
// while it starts a process: both may wait for a goroutine that waits for them. Let
// another process use them.
package faultfs
