package httpd

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"sessiond/internal/config"
)

type route uint8

const (
	routeEndpoint route = iota + 1
	routePreflight
	routeHealth
	routeReady
	routeAbout
)

// guard reads the header lines into h and decides where a request goes, or why
// it goes nowhere, from cheap to dear: framing, Host, path, method, origin, type.
// Without a connection, which is not known while a body is still to be read, Host
// is left to the second call.
func (s *Server) guard(r *fasthttp.RequestHeader, h *head, c *conn, cfg *config.Config) (route, refusal) {
	version := r.Protocol()
	if string(version) != "HTTP/1.1" && string(version) != "HTTP/1.0" {
		return 0, badVersion
	}
	target := r.RequestURI()
	if len(target) == 0 || target[0] != '/' {
		return 0, badTarget
	}
	if refused := h.read(r.RawHeaders()); refused != accepted {
		return 0, refused
	}
	path, query := target, []byte(nil)
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	switch string(path) {
	case "/healthz":
		return getOnly(r, routeHealth)
	case "/readyz":
		return getOnly(r, routeReady)
	}
	if !h.hasHost {
		return 0, missingHost
	}
	if c != nil && !c.takesHost(h.host, cfg) {
		return 0, wrongHost
	}
	switch string(path) {
	case s.endpoint:
		return guardEndpoint(r, h, query, cfg)
	case "/":
		return getOnly(r, routeAbout)
	}
	return 0, noSuchPath
}

func getOnly(r *fasthttp.RequestHeader, to route) (route, refusal) {
	if !r.IsGet() && !r.IsHead() {
		return 0, wantsGet
	}
	return to, accepted
}

func guardEndpoint(r *fasthttp.RequestHeader, h *head, query []byte, cfg *config.Config) (route, refusal) {
	switch {
	case r.IsOptions() && h.isPreflight && originAllowed(h.origin, cfg):
		return routePreflight, accepted
	case !r.IsPost():
		return 0, wantsPost
	case isCrossSite(h) && !originAllowed(h.origin, cfg):
		return 0, crossSite
	case len(query) > 0:
		return 0, hasQuery
	case !h.hasLength && !h.isEncoded:
		return 0, lengthRequired
	case !isJSON(h.contentType):
		return 0, wrongType
	case len(h.contentEncoding) > 0 && !bytes.EqualFold(h.contentEncoding, []byte("identity")):
		return 0, wrongEncoding
	}
	return routeEndpoint, accepted
}

// isJSON reports whether a body of this type is read as JSON: application/json
// with any parameters, none at all, or what curl -d sends.
func isJSON(contentType []byte) bool {
	if string(contentType) == "application/json" || len(contentType) == 0 {
		return true
	}
	media, _, _ := bytes.Cut(contentType, []byte(";"))
	media = trim(media)
	return bytes.EqualFold(media, []byte("application/json")) || bytes.EqualFold(media, []byte("application/x-www-form-urlencoded"))
}

// isCrossSite reports whether a browser says that a page of another origin sent
// the request. A browser that does not say so itself (over plain HTTP none does)
// still names the page's origin, which must then be that of Host.
func isCrossSite(h *head) bool {
	switch {
	case len(h.fetchSite) > 0:
		return string(h.fetchSite) != "same-origin" && string(h.fetchSite) != "none"
	case len(h.origin) > 0:
		_, host, found := bytes.Cut(h.origin, []byte("://"))
		return !found || !bytes.EqualFold(host, h.host)
	}
	return false
}

func originAllowed(origin []byte, cfg *config.Config) bool {
	if len(origin) == 0 || string(origin) == "null" {
		return false
	}
	return slices.Contains(cfg.AllowedOrigins, string(origin))
}

// takesHost reports whether the request is meant for this server: a page that
// has bound its own name to our address (DNS rebinding) comes with its own name.
// The answer for a connection's last Host is kept.
func (c *conn) takesHost(host []byte, cfg *config.Config) bool {
	if c.hostConfig == cfg && c.host == string(host) {
		return true
	}
	if !c.listener.takesHost(string(host), cfg.AllowedHosts) {
		return false
	}
	c.host, c.hostConfig = string(host), cfg
	return true
}

// takesHost compares names without ports, which differ behind a forwarded port.
// An entry of allowed that has a port means that port only.
func (l *listener) takesHost(host string, allowed []string) bool {
	name, ok := cutPort(host)
	if !ok || name == "" {
		return false
	}
	if _, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")); err == nil {
		return true
	}
	name = strings.TrimSuffix(name, ".")
	if slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, name) || strings.EqualFold(a, host) }) {
		return true
	}
	if l.loopback && strings.EqualFold(name, "localhost") || l.name != "" && strings.EqualFold(name, l.name) {
		return true
	}
	return l.everywhere && len(allowed) == 0
}

// cutPort returns host without its port, and whether it is of the form of RFC
// 9110's Host.
func cutPort(host string) (string, bool) {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:i], host[i+1:]
	}
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' {
			return "", false
		}
	}
	if strings.HasPrefix(name, "[") != strings.HasSuffix(name, "]") || strings.HasPrefix(name, "[") == !strings.Contains(name, ":") {
		return "", false
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' || strings.IndexByte(`/\@?#,`, name[i]) >= 0 {
			return "", false
		}
	}
	return name, true
}
