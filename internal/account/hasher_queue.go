package account

import (
	"net/netip"
	"slices"
)

// A Lane says for whom a hash is made: those who are known go first, and no
// network may fill the queue.
type Lane struct {
	Familiar bool       // the account was in use from there before, or the caller holds a session
	Network  netip.Addr // see network; the zero address counts nowhere
}

// How the places of a Hasher's queue are shared out.
const (
	othersShare  = 2 // those who are not familiar hold one in so many at most
	networkShare = 4 // and so does a network in either line
	familiarRow  = 4 // so many familiar jobs in a row, then one of the others
)

// job is a piece of work.
type job struct {
	lane     Lane
	run      func(*worker)
	finished chan struct{}
}

// queue is what waits for a worker, in two lines that share its places: a flood of
// strangers fills the second only, and those in the first neither wait behind it
// nor stop it. It has no lock of its own.
type queue struct {
	familiar []*job
	others   []*job
	networks map[Lane]int // places held
	row      int          // familiar jobs begun since one of the others was
}

func newQueue() queue { return queue{networks: make(map[Lane]int)} }

func (q *queue) len() int { return len(q.familiar) + len(q.others) }

// line returns where jobs of a lane wait.
func (q *queue) line(l Lane) *[]*job {
	if l.Familiar {
		return &q.familiar
	}
	return &q.others
}

// full reports whether none of so many places is left for a lane.
func (q *queue) full(l Lane, places int) bool {
	return q.len() >= places ||
		!l.Familiar && len(q.others) >= max(1, places/othersShare) ||
		l.Network.IsValid() && q.networks[l] >= max(1, places/networkShare)
}

// push gives a job the last place of its line, if there is one for it.
func (q *queue) push(j *job, places int) bool {
	if q.full(j.lane, places) {
		return false
	}
	line := q.line(j.lane)
	*line = append(*line, j)
	if j.lane.Network.IsValid() {
		q.networks[j.lane]++
	}
	return true
}

// pop takes the job whose turn it is, or returns nil.
func (q *queue) pop() *job {
	line := &q.familiar
	if len(q.familiar) == 0 || len(q.others) > 0 && q.row >= familiarRow {
		line = &q.others
	}
	if len(*line) == 0 {
		return nil
	}
	j := (*line)[0]
	if q.row++; !j.lane.Familiar {
		q.row = 0
	}
	q.remove(j)
	return j
}

// remove takes a job away and reports whether it waited.
func (q *queue) remove(j *job) bool {
	line := q.line(j.lane)
	i := slices.Index(*line, j)
	if i < 0 {
		return false
	}
	*line = slices.Delete(*line, i, i+1)
	if j.lane.Network.IsValid() {
		if q.networks[j.lane]--; q.networks[j.lane] == 0 {
			delete(q.networks, j.lane)
		}
	}
	return true
}
