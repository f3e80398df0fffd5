package httpd

// What a client does not read, its answer, stays in memory until the time for it is
// over. A small one, of keptBody at most, fits what any connection may hold. Larger
// ones share this room, half of which is for those who are known: strangers, of whom
// there may be any number, cannot keep them from their answers.
const (
	maxUnsent           = 16 << 20
	maxUnsentToStranger = maxUnsent / 2
)

// Grow implements api.Room for the answer that is being made.
func (c *conn) Grow(bytes int, known bool) bool {
	more := int64(bytes) - c.unsent
	if bytes <= keptBody || more <= 0 {
		return true
	}
	most := int64(maxUnsentToStranger)
	if known {
		most = maxUnsent
	}
	if c.gate.unsent.Add(more) > most {
		c.gate.unsent.Add(-more)
		return false
	}
	c.unsent += more
	return true
}

// hold says how much memory the connection's answer takes after all; 0 says that it
// is sent, or given up.
func (c *conn) hold(bytes int) {
	now := int64(bytes)
	if bytes <= keptBody {
		now = 0
	}
	if now != c.unsent {
		c.gate.unsent.Add(now - c.unsent)
		c.unsent = now
	}
}
