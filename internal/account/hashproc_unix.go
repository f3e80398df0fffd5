//go:build unix

package account

import "syscall"

// niceness is how far a hash worker steps behind other processes: at 15 it gets
// about a thirtieth of what a process of the usual priority gets beside it.
const niceness = 15

// giveWay puts this process into a group of its own, which the terminal's Ctrl-C
// does not reach, lowers the priority of all its threads and has it leave no
// core. It stays in its session, within which Linux compares niceness (autogroup,
// sched(7)). What is refused changes no answer.
func giveWay() {
	if syscall.Setpgid(0, 0) == nil { // or others would give way too
		_ = syscall.Setpriority(syscall.PRIO_PGRP, 0, niceness)
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}
