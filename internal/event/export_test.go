package event

// Handed returns the position up to which all who wait have been shown the events.
func (t *Tail) Handed() uint64 {
	t.waiting.Lock()
	defer t.waiting.Unlock()
	return t.waiting.handed
}

const MarkKey = markKey

// Disk is what a Journal does to its file.
type Disk = disk

// On has the journal work on what wrap makes of its file.
func (j *Journal) On(wrap func(Disk) Disk) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.file = wrap(j.file)
}
