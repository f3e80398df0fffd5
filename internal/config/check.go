package config

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sessiond/internal/api"
)

// checkWhole finds what no single member shows: contradictions between them. It
// fills in what depends on others.
func checkWhole(r *reader, c *Config, listenersOverridden bool) {
	checkListeners(r, c, listenersOverridden)
	checkAPIs(r, c)
	checkDefaults(r, c)
	checkProperties(r, c)
	checkRealms(r, c)
	checkWebhooks(r, c)
	if len(c.TrustedProxies) == 0 && r.has("/forwardedHeader") {
		r.warn("/forwardedHeader", "has no effect without trustedProxies")
	}
	for i, p := range c.TrustedProxies {
		if p.Bits() == 0 {
			r.warn("/trustedProxies/"+strconv.Itoa(i), "lets every client choose its own address; name the proxies alone")
		}
	}
}

func checkListeners(r *reader, c *Config, overridden bool) {
	at := func(i int, member string) string {
		if overridden {
			return outside
		}
		return "/listeners/" + strconv.Itoa(i) + member
	}
	kept := make([]Listener, 0, len(c.Listeners))
	enabled := 0
	for i, l := range c.Listeners {
		if l.Protocol == "" { // one of FairCom's others, or a fault
			continue
		}
		kept = append(kept, l)
		checkTLS(r, l, func(member string) string { return at(i, member) })
		if !l.Enabled {
			continue
		}
		enabled++
		if ip := l.ip(); l.Protocol == HTTP && ip.IsValid() && !ip.IsLoopback() && !c.InsecureHTTP {
			r.fault(at(i, "/address"), "plain HTTP beyond loopback lets everybody on the way read tokens and passwords; use https, a loopback address, or insecureHttp (the flag --insecure-http)")
		}
	}
	for i, l := range c.Listeners {
		if slices.Contains(apiNames(), strings.ToLower(l.ServiceName)) {
			r.fault(at(i, "/serviceName"), "is the name of an api; manageService tells them apart by their names, so choose another one")
		}
		for _, before := range c.Listeners[:i] {
			if l.ServiceName != "" && strings.EqualFold(l.ServiceName, before.ServiceName) {
				r.fault(at(i, "/serviceName"), "is the name of an earlier listener; each needs its own")
				break
			}
		}
		for _, before := range c.Listeners[:i] {
			if collide(l, before) {
				r.fault(at(i, "/port"), "an earlier enabled listener has the same port on the same address; change one or disable it")
				break
			}
		}
	}
	where := "/listeners"
	if overridden {
		where = outside
	}
	if enabled == 0 && !r.faulty(where) {
		r.fault(where, "must hold at least one enabled listener of the protocol http or https")
	}
	c.Listeners = kept
}

func checkTLS(r *reader, l Listener, at func(member string) string) {
	switch {
	case l.Protocol == HTTP && (l.TLS != TLS{} || r.has(at("/tls"))):
		r.fault(at("/tls"), "belongs to listeners of the protocol https; remove it or change the protocol")
	case l.Protocol == HTTPS && l.TLS.CertificateFile == "" && !r.faulty(at("/tls")):
		r.fault(at("/tls"), "an https listener needs tls with serverCertificateFilename, the path of a PEM file")
	}
}

// collide reports whether two listeners cannot be open together. One on all
// addresses takes those of both kinds of IP. A name may be any address, and is
// only compared as it stands.
func collide(a, b Listener) bool {
	if !a.listens() || !b.listens() || a.Port != b.Port || a.Port == 0 {
		return false
	}
	ipA, ipB := a.ip(), b.ip()
	if !ipA.IsValid() || !ipB.IsValid() {
		return a.Address == b.Address
	}
	return ipA == ipB || ipA.IsUnspecified() || ipB.IsUnspecified()
}

func (l Listener) listens() bool {
	return l.Enabled && (l.Protocol == HTTP || l.Protocol == HTTPS)
}

// ip returns the address to bind, which is not valid for a name that only the
// resolver knows.
func (l Listener) ip() netip.Addr {
	switch l.Address {
	case "", "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case anywhere:
		return netip.IPv6Unspecified()
	}
	a, err := netip.ParseAddr(l.Address)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

func checkAPIs(r *reader, c *Config) {
	if !slices.Contains(slices.Collect(maps.Values(c.APIs)), true) {
		r.fault("/apis", "must leave at least one of admin, session and hub enabled")
		return
	}
	d := &c.Defaults
	if d.DefaultAPI != "" && !c.APIs[d.DefaultAPI] {
		r.fault("/jsonActionApiDefaults/defaultApi", "names an api that is not enabled in apis; enable it or choose another")
	}
	for _, name := range []string{api.Hub, api.Admin, api.Session} {
		if d.DefaultAPI == "" && c.APIs[name] {
			d.DefaultAPI = name
		}
	}
}

func checkDefaults(r *reader, c *Config) {
	const at = "/jsonActionApiDefaults/"
	d := &c.Defaults
	if d.DefaultResponseOptions.BinaryFormat == "" {
		d.DefaultResponseOptions.BinaryFormat = d.DefaultBinaryFormat
	}
	beyond := func(value, largest int64) bool { return largest > 0 && (value == 0 || value > largest) }
	if beyond(d.IdleConnectionTimeoutSeconds, d.MaxIdleTimeoutSeconds) || beyond(max(1, d.RememberMeIdleSeconds), d.MaxIdleTimeoutSeconds) {
		r.fault(at+"largestIdleConnectionTimeoutSeconds", "must not be less than the idle times that sessions have without asking, of which 0 is the longest")
	}
	if beyond(d.MaxSessionTimeoutSeconds, d.MaxLifetimeSeconds) {
		r.fault(at+"largestMaxSessionTimeoutSeconds", "must not be less than maxSessionTimeoutSeconds, of which 0 is the longest")
	}
	if !r.has("/profile") {
		return
	}
	said := *d
	for _, p := range profiles() {
		if p.name == c.Profile {
			p.over(&said)
		}
	}
	for _, m := range []struct {
		name             string
		profile, present int64
	}{
		{"idleConnectionTimeoutSeconds", said.IdleConnectionTimeoutSeconds, d.IdleConnectionTimeoutSeconds},
		{"maxSessionTimeoutSeconds", said.MaxSessionTimeoutSeconds, d.MaxSessionTimeoutSeconds},
		{"rememberMeIdleTimeoutSeconds", said.RememberMeIdleSeconds, d.RememberMeIdleSeconds},
		{"abandonAfterSeconds", said.AbandonAfterSeconds, d.AbandonAfterSeconds},
	} {
		if m.profile != m.present {
			r.warn(at+m.name, "stands before what the profile says, which is "+strconv.FormatInt(m.profile, 10))
		}
	}
}

func checkRealms(r *reader, c *Config) {
	hasNative := false
	for i, realm := range c.Realms {
		at := "/realms/" + strconv.Itoa(i)
		isNative := strings.EqualFold(realm.Name, Native)
		hasNative = hasNative || isNative
		for _, before := range c.Realms[:i] {
			if realm.Name != "" && strings.EqualFold(realm.Name, before.Name) {
				r.fault(at+"/name", "is the name of an earlier realm; each needs its own")
				break
			}
		}
		switch {
		case isNative && realm.Name != Native:
			r.fault(at+"/name", "differs from native by case alone; choose another name")
		case isNative && realm.Type != Native:
			r.fault(at+"/type", "the realm native is always of the type native; give the other one a name of its own")
		case realm.AllowServerRoles && realm.Type != Trusted:
			r.fault(at+"/allowServerRoles", "belongs to realms of the type trusted; remove it")
		}
		checkRealmTimes(r, at, &realm, &c.Defaults)
	}
	if !hasNative {
		c.Realms = slices.Insert(c.Realms, 0, Realm{Name: Native, Type: Native})
	}
}

// checkRealmTimes holds a realm's times to the caps; 0 is the default, which is
// held to them already.
func checkRealmTimes(r *reader, at string, realm *Realm, d *Defaults) {
	for _, m := range []struct {
		name, largest string
		value, most   int64
	}{
		{"idleConnectionTimeoutSeconds", "largestIdleConnectionTimeoutSeconds", realm.IdleTimeoutSeconds, d.MaxIdleTimeoutSeconds},
		{"rememberMeIdleTimeoutSeconds", "largestIdleConnectionTimeoutSeconds", realm.RememberMeIdleSeconds, d.MaxIdleTimeoutSeconds},
		{"maxSessionTimeoutSeconds", "largestMaxSessionTimeoutSeconds", realm.MaxLifetimeSeconds, d.MaxLifetimeSeconds},
	} {
		if m.most > 0 && m.value > m.most {
			r.fault(at+"/"+m.name, "must not be more than "+m.largest+" of jsonActionApiDefaults")
		}
	}
}
