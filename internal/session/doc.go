// Package session is what a session is: its token, its life, its limits, and the
// live table that answers for it.
//
// # Two places
//
// What must survive is in the store: a Record per session under a time-ordered
// key, and beside it whatever would cost too much inside. Ends are appended, and
// folded into tombstones later, in sorted batches (maintain.go); last uses are
// written in blocks, and folded into fewer (lastuse.go).
// What a request needs is in the Table: pointer-free entries outside the
// collector's heap. The table is a projection. It is filled by Load, fed by Apply
// with each commit in order, and written by nobody else; a small overlay of
// atomics (last use, end under way) lies over it.
//
//	sess/HANDLE     Record            a living session, or one that died and was not swept yet
//	end/HANDLE      End               an end that is durable and not folded yet
//	past/HANDLE     Record with End   a tombstone
//	server/tombstones  the number of tombstones by status, changed in the commits that write and forget them
//	touch/ID        block             last uses of many sessions
//	epoch/…         Generation        of the server, of a realm; an account's is in its record
//	client/ID       Client            a browser or device with several sessions
//	gone/TIME ID    account key       an account that was dropped, and of which a marker remains
//
// # A session's death
//
// A session is dead when its end is under way or durable, when its idle time or
// its lifetime is over, or when an epoch that it was created under is no longer
// in force. All of that is decided in one place, Table.look, each time that it is
// asked; no rule waits for a clean-up. A dead session stays dead: a touch that
// comes too late is lost (seal), and the clock does not go back. What of all that
// was first, its tombstone says (Keeper.endOf): for that an epoch keeps its last
// rises until nobody's tombstone has to name them.
//
// # A session's commit
//
// Keeper.Create takes a place of the limits, then commits record and event on the
// condition that neither the account nor an epoch has changed since they were
// read, so that a log-in cannot slip through a mass logout. Keeper.End marks the
// session first, so that it is dead whatever becomes of the commit; its condition
// lets one end win, and no alteration pass it. Every change that lost a race is
// tried again in one place, where it is made.
package session
