package event

// Handed returns the position up to which all who wait have been shown the events.
func (t *Tail) Handed() uint64 {
	t.waiting.Lock()
	defer t.waiting.Unlock()
	return t.waiting.handed
}

const MarkKey = markKey
