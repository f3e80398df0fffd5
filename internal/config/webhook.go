package config

import (
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Webhook is a receiver of events.
type Webhook struct {
	Name           string
	URL            string
	SecretFile     string   // whsec_ and base64, in a file of its own
	Kinds          []string // of events; empty: all
	Realms         []string // of the accounts that events are about; empty: all
	Enabled        bool
	TimeoutSeconds Secs // for one delivery, 10 s
}

func blankWebhook() Webhook { return Webhook{Enabled: true, TimeoutSeconds: 10} }

func webhookRows() []entry[Webhook] {
	return []entry[Webhook]{
		text("name", webhookNameForm(), func(w *Webhook) *string { return &w.Name },
			"Letters, digits, `_` and `-`; no two alike but for case. Under it the server keeps how far the receiver is.").needed(),
		text("url", webhookURLForm(), func(w *Webhook) *string { return &w.URL },
			"Where events are sent. Redirects are not followed.").needed(),
		text("secretFile", form{least: 1, most: 4096, example: "./secrets/crm"}, func(w *Webhook) *string { return &w.SecretFile },
			"File with the secret of the signatures alone in it: `whsec_` and the base64 of 24 to 64 random bytes.").needed(),
		strs("kinds", kindForm(), func(w *Webhook) *[]string { return &w.Kinds },
			"Only events of these kinds, as listEvents names them.").usually("all"),
		strs("realms", realmNameForm(), func(w *Webhook) *[]string { return &w.Realms },
			"Only events about accounts of these realms.").usually("all"),
		flag("enabled", func(w *Webhook) *bool { return &w.Enabled },
			"Whether events are sent. A receiver that is enabled again gets what it has missed."),
		integer("timeoutSeconds", 1, 300, func(w *Webhook) *Secs { return &w.TimeoutSeconds },
			"Time that a receiver has to take an event."),
	}
}

var (
	webhookPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	kindPattern    = regexp.MustCompile(`^[a-z][A-Za-z]+$`)
)

func webhookNameForm() form {
	return form{
		least: 1, most: 64, pattern: webhookPattern.String(), parse: matching(webhookPattern),
		want: `a name of letters, digits, "_" and "-"`,
	}
}

func kindForm() form {
	return form{
		least: 1, most: 64, pattern: kindPattern.String(), parse: matching(kindPattern), example: "sessionEnded",
		want: "a kind of events, such as sessionEnded",
	}
}

func webhookURLForm() form {
	return form{
		least: 8, most: 2048, pattern: "^https?://[^/?#@]+", example: "https://crm.example.com/hooks",
		want: "a URL of http or https, with a host, without a user name, a password or a fragment: the signature proves who sends",
		parse: func(s string) (string, bool) {
			u, err := url.Parse(s)
			return s, err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
				u.Fragment == "" && !strings.ContainsAny(s, " #@") && strings.HasPrefix(s, u.Scheme+"://")
		},
	}
}

func checkWebhooks(r *reader, c *Config) {
	for i, w := range c.Webhooks {
		at := "/webhooks/" + strconv.Itoa(i)
		for _, before := range c.Webhooks[:i] {
			if w.Name != "" && strings.EqualFold(w.Name, before.Name) {
				r.fault(at+"/name", "is the name of an earlier webhook; each needs its own")
				break
			}
		}
		u, err := url.Parse(w.URL)
		if err != nil || u.Scheme != "http" {
			continue
		}
		if ip, _ := netip.ParseAddr(u.Hostname()); u.Hostname() != "localhost" && !ip.IsLoopback() {
			r.warn(at+"/url", "sends events in the clear: everybody on the way can read them; use https")
		}
	}
}
