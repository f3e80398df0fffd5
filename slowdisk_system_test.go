//go:build linux && system

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/internal/campaign"
	"sessiond/internal/faultfs"
)

// A disk that takes its time is waited for by those who change something, as long
// as two commits take, and by nobody else: asking is as quick as ever, an end is in
// force at once, and who is too much is told so.
func TestSystemCampaignSlowDisk(t *testing.T) {
	campaign.Run(t, campaign.Plan{
		Name: "slow disk", Trials: 20, Few: 2,
		Must: []string{slowValidates, slowCreates, lateEnds, strangeAnswers, unbounded, hangs},
		About: fmt.Sprintf("a server whose disk takes 200 ms or 2 s for each sync (a commit is two): %d clients that validate beside %d that create, in turn with a quick disk; "+
			"then %d creates at once", validators, creators, rushCreates),
	}, func(r *campaign.Trial) {
		if r.N%2 == 0 {
			rounds := 1
			if r.Whole {
				rounds = 3
			}
			slowDisk(r, 200*time.Millisecond, rounds)
		} else {
			slowDisk(r, 2*time.Second, 1)
		}
	})
}

const (
	validators, creators = 4, 8

	validateEvery = 5 * time.Millisecond
	createEvery   = 50 * time.Millisecond
	commitsWaited = 2 // the one under way, and one's own
	syncsOfCommit = 2
	grace         = 100 * time.Millisecond // both of a machine that others use too
	validateGrace = 10 * time.Millisecond
	mostGrowth    = 64 // MiB
	rushCreates   = 1400
	ofAddress     = 200 // of them: it may have 256 connections

	slowValidates  = "validates more than 1.5 times as slow"
	slowCreates    = "creates slower than two commits and 100 ms"
	lateEnds       = "ends that waited for the disk"
	strangeAnswers = "creates neither made nor refused with 503 for too many"
	unbounded      = "rushes of which nothing was refused"
)

func slowDisk(r *campaign.Trial, delay time.Duration, rounds int) {
	f := newFaulty(r.T, "")
	defer f.Unmount()
	p := newHome(r.T, roomy()).at(f.at).start(r.T)
	defer p.kill()
	s := hire(r.T, p)
	bound := commitsWaited*syncsOfCommit*delay + grace

	var quick, slow []time.Duration // 99 % of the validates of a round
	for range rounds {
		validates, _ := timed(r, p, s, time.Second)
		quick = append(quick, validates)
		f.Delay(faultfs.Sync, delay)
		validates, creates := timed(r, p, s, max(2*time.Second, syncsOfCommit*delay))
		slow = append(slow, validates)
		r.Most(fmt.Sprintf("ms of 99 %% of the creates with syncs of %v", delay), creates.Milliseconds())
		if creates > bound {
			r.T.Logf("99 %% of the creates took up to %v, want at most %v", creates, bound)
			r.Count(slowCreates, 1)
		}
		endAtOnce(r, p, s)
		f.Delay(faultfs.Sync, 0)
	}
	base, now := quantile(quick, 0.5), quantile(slow, 0.5)
	r.Most("µs of 99 % of the validates, quick disk", base.Microseconds())
	r.Most("µs of 99 % of the validates, slow disk", now.Microseconds())
	if now > max(base*3/2, base+validateGrace) {
		r.T.Logf("99 %% of the validates took up to %v, with a quick disk %v", now, base)
		r.Count(slowValidates, 1)
	}

	f.Delay(faultfs.Sync, delay)
	before, begun := int64(0), time.Time{}
	refused := rush(r, p, s, func() { before, begun = p.anonymous(r.T), time.Now() })
	if took := time.Since(begun); took > max(hang, 2*bound) {
		r.Count(hangs, 1)
	}
	r.Count("creates refused for too many", refused)
	if refused == 0 {
		r.Count(unbounded, 1)
	}
	grown := (p.anonymous(r.T) - before) >> 10
	r.Most("MiB that the server grew", grown)
	if grown > mostGrowth {
		r.T.Errorf("the server grew by %d MiB", grown)
	}
}

// rush creates more sessions at once than may wait, and returns how many were
// refused: with 503, and told when to come again. It begins once all are connected.
func rush(r *campaign.Trial, p *process, s staff, begin func()) (refused int) {
	answers := make([]httpAnswer, rushCreates)
	var group, connected sync.WaitGroup
	connected.Add(rushCreates)
	begun := make(chan struct{})
	for n := range answers {
		group.Go(func() {
			c := newClient(p, s.issuerKey.AuthToken)
			defer c.close()
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+n/ofAddress))}}
			c.http.Transport = &http.Transport{DialContext: from.DialContext}
			err := c.call(r.T.Context(), "pingSession", nil, nil)
			connected.Done()
			<-begun
			if err == nil {
				answers[n], err = c.create(r.T.Context(), fmt.Sprint("crowd-", n))
			}
			if err != nil {
				r.T.Errorf("client %d: %v", n, err)
			}
		})
	}
	connected.Wait()
	begin()
	close(begun)
	group.Wait()
	codes := map[httpAnswer]int{}
	for _, a := range answers {
		codes[a]++
	}
	created, refused := codes[httpAnswer{http.StatusOK, 0, ""}], codes[httpAnswer{http.StatusServiceUnavailable, overloaded, "1"}]
	if strange := rushCreates - created - refused; strange != 0 {
		r.T.Logf("%d creates at once were answered %+v", rushCreates, codes)
		r.Count(strangeAnswers, strange)
	}
	return refused
}

// httpAnswer is an answer without its result.
type httpAnswer struct {
	status, code int
	retryAfter   string
}

// create asks for a session and tells the HTTP of the answer as well.
func (c *client) create(ctx context.Context, username string) (a httpAnswer, err error) {
	body := fmt.Sprintf(`{"action":"createSession","authToken":%q,"params":{"realm":"app","username":%q}}`, c.token, username)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	var said refusal
	err = json.NewDecoder(response.Body).Decode(&said)
	return httpAnswer{response.StatusCode, said.Code, response.Header.Get("Retry-After")}, err
}

// timed has clients validate and create for a while, and returns how long 99 % of
// either took at most.
func timed(r *campaign.Trial, p *process, s staff, d time.Duration) (validates, creates time.Duration) {
	ctx, cancel := context.WithTimeout(r.T.Context(), d)
	defer cancel()
	var validated, created stopwatch
	var group sync.WaitGroup
	for n := range validators + creators {
		c := newClient(p, s.issuerKey.AuthToken)
		defer c.close()
		group.Go(func() {
			for ctx.Err() == nil {
				next := time.After(createEvery)
				if n < validators {
					next = time.After(validateEvery)
					validated.time(r.T, c, "validate", params{"refresh": false})
				} else {
					created.time(r.T, c, "createSession", params{"realm": "app", "username": fmt.Sprint("user-", n)})
				}
				<-next
			}
		})
	}
	group.Wait()
	return quantile(validated.took, 0.99), quantile(created.took, 0.99)
}

// stopwatch collects how long calls took.
type stopwatch struct {
	mu   sync.Mutex
	took []time.Duration
}

func (s *stopwatch) time(t *testing.T, c *client, action string, p params) {
	begun := time.Now()
	err := c.call(t.Context(), action, p, nil)
	took := time.Since(begun)
	if err != nil {
		t.Errorf("%s: %v", action, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, took)
}

// endAtOnce ends a session, which has to be dead before that is durable.
func endAtOnce(r *campaign.Trial, p *process, s staff) {
	var made credential
	key := newClient(p, s.issuerKey.AuthToken)
	defer key.close()
	key.must(r.T, "createSession", params{"realm": "app", "username": "leaver"}, &made)
	c := newClient(p, made.AuthToken)
	defer c.close()
	ended := make(chan error, 1)
	go func() { ended <- c.call(r.T.Context(), "deleteSession", nil, nil) }()
	watcher := newClient(p, made.AuthToken)
	defer watcher.close()
	for codeOf(watcher.call(r.T.Context(), "validate", params{"refresh": false}, nil)) != invalidAuthToken {
	}
	select {
	case err := <-ended:
		r.T.Logf("the end was answered before it was in force (%v)", err)
		r.Count(lateEnds, 1)
	default:
		if err := <-ended; err != nil {
			r.T.Errorf("deleteSession: %v", err)
		}
	}
}
