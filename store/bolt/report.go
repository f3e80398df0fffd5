package bolt

import "time"

// Condition is what a Report is about.
type Condition uint8

// The conditions that an operator should know of.
const (
	Full    Condition = iota + 1 // no space is left: from now on only urgent commits are tried
	Resumed                      // there is space again: all commits are
	Stopped                      // the file cannot be written: nothing is any more, until it is opened anew
	Slow                         // a commit takes, or took, long
	Copied                       // the file was written anew when it was opened, as the disk had failed before
)

// A Report tells of a change in what the store can do.
type Report struct {
	Condition Condition
	Cause     error         // of Full and Stopped
	Took      time.Duration // of Slow, so far
	Waiting   int           // of Slow: how many commits wait for their turn
}

// report tells whoever wants to know.
func (o Options) report(r Report) {
	if o.Report != nil {
		o.Report(r)
	}
}
