package config_test

import (
	"testing"
	"time"

	"sessiond/internal/config"
)

// A quote is what a system says of a time of its sessions, and the seconds that
// follow from it.
type quote struct {
	says string
	want int64
	get  func(d *config.Defaults) int64
}

func idleTime(d *config.Defaults) int64   { return d.IdleConnectionTimeoutSeconds }
func lifetime(d *config.Defaults) int64   { return d.MaxSessionTimeoutSeconds }
func remembered(d *config.Defaults) int64 { return d.RememberMeIdleSeconds }
func abandoned(d *config.Defaults) int64  { return d.AbandonAfterSeconds }
func latest(d *config.Defaults) int64     { return d.LatestAccessSeconds }

// The profiles have the times of the systems that they are named after, to the
// second, in the words of their documents.
func TestProfilesAreWhatTheirSystemsSay(t *testing.T) {
	const minute, hour, day = 60, 3600, 24 * 3600
	for profile, quotes := range map[string][]quote{
		"faircom": {
			{`"idleConnectionTimeoutSeconds": 3600`, 3600, idleTime},
			{`"idleCursorTimeoutSeconds": 600`, 600, func(d *config.Defaults) int64 { return d.IdleCursorTimeoutSeconds }},
			{`"defaultRetentionUnit": "week", "defaultRetentionPeriod": 4`, 4 * 7 * day, func(d *config.Defaults) int64 { return int64(d.Retention() / time.Second) }},
			{`no word of a lifetime`, 0, lifetime},
			{`no word of "Remember Me"`, 0, remembered},
			{`no word of sessions that are abandoned`, 0, abandoned},
		},
		"fusion": {
			{`By default, sessions time out after 1 hour of no activity.`, hour, idleTime},
			{`A default maximum limit of 8 hours ensures that sessions are cleared, regardless of activity.`, 8 * hour, lifetime},
			{`no word of "Remember Me"`, 0, remembered},
			{`no word of sessions that are abandoned`, 0, abandoned},
		},
		"am": {
			{`"maxidletime": 30`, 30 * minute, idleTime},
			{`"maxsessiontime": 120`, 120 * minute, lifetime},
			{`"latestAccessTime": "2024-01-12T14:18:24Z", "maxIdleExpirationTime": "2024-01-12T14:48:24Z"`, between("2024-01-12T14:18:24Z", "2024-01-12T14:48:24Z"), idleTime},
			{`"latestAccessTime": "2024-01-15T07:44:00.670Z", "maxSessionExpirationTime": "2024-01-15T09:44:00Z", just created`, between("2024-01-15T07:44:00Z", "2024-01-15T09:44:00Z"), lifetime},
			{`updates a session's latest access time at most this often. The default is 60 seconds.`, 60, latest},
			{`no word of "Remember Me"`, 0, remembered},
			{`no word of sessions that are abandoned`, 0, abandoned},
		},
		"clerk": {
			{`"last_active_at": 1616473411, "expire_at": 1617078211`, 1617078211 - 1616473411, lifetime},
			{`"last_active_at": 1616473411, "abandon_at": 1619065411`, 1619065411 - 1616473411, abandoned},
			{`no word of an idle time`, 0, idleTime},
			{`no word of "Remember Me"`, 0, remembered},
		},
		"web": {
			{`Sessions expire after 7 days of inactivity by default. SESSION_TIMEOUT_DAYS=7`, 7 * day, idleTime},
			{`Checking "Remember Me" at login extends the session to 30 days.`, 30 * day, remembered},
			{`no word of a lifetime`, 0, lifetime},
			{`no word of sessions that are abandoned`, 0, abandoned},
		},
	} {
		d := parse(t, `{"profile": "`+profile+`"}`).Defaults
		for _, q := range quotes {
			if got := q.get(&d); got != q.want {
				t.Errorf("%s says %s, that is %d s; its profile has %d s", profile, q.says, q.want, got)
			}
		}
		if d.IdleToleranceSeconds != 0 || d.ExpiryJitterPercent != 0 {
			t.Errorf("%s: a tolerance or a jitter that nobody asked for: %+v", profile, d)
		}
	}
}

// between returns the seconds from one moment to another.
func between(from, to string) int64 {
	a, errA := time.Parse(time.RFC3339, from)
	b, errB := time.Parse(time.RFC3339, to)
	if errA != nil || errB != nil {
		return -1
	}
	return int64(b.Sub(a) / time.Second)
}
