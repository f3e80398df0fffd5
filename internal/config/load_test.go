package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/config"
)

// tutorial is the block of FairCom's tutorial on permanent sessions, with the
// colon that its print has lost, as a whole file.
const tutorial = `{
"jsonActionApiDefaults":
{
  "defaultApi": "hub",
  "defaultBinaryFormat": "hex",
  "defaultDatabaseName": "faircom",
  "defaultDebug": "max",
  "defaultOwnerName": "admin",
  "defaultResponseOptions":
  {
    "binaryFormat": "hex",
    "dataFormat": "objects",
    "numberFormat": "number"
  },
  "idleConnectionTimeoutSeconds": 3600,
  "idleCursorTimeoutSeconds": 600,
  "defaultRetentionPolicy": "autoPurge",
  "defaultRetentionUnit": "week",
  "defaultRetentionPeriod": 4,
  "maxJsonApiSessions": 1024,
  "maxJsonApiSessionsPerIpAddress": 50,
  "maxJsonApiSessionsPerUsername": 50,
  "enablePermanentJsonApiSessions": true
}
}`

// fairCom is a file of the shape that FairCom's products ship, with all that has
// no meaning here.
const fairCom = `{
  "listeners": [
    {"serviceName": "http8080", "description": "all addresses", "port": 8080, "protocol": "http", "enabled": true},
    {"serviceName": "https8443", "port": 8443, "protocol": "https", "enabled": true,
     "tls": {"serverCertificateFilename": "./web/fccert.pem", "allowedCipherSuites": "TLS_AES_256_GCM_SHA384"}},
    {"serviceName": "mqtt1883", "port": 1883, "protocol": "mqtt", "enabled": true},
    {"serviceName": "mqttws9001", "port": 9001, "protocol": "mqttws", "enabled": true}
  ],
  "mqtt": {"authenticationMethods": ["none", "password"]},
  "jsonActionApiDefaults": {"defaultApi": "db", "defaultVariantFormat": "json", "defaultStringFormat": "json", "defaultResponseOptions": {"dataFormat": "default", "variantFormat": "json"}},
  "apiRoot": "./api",
  "apis": [{"serviceName": "hub", "enabled": true}, {"serviceName": "mq", "enabled": true}, {"serviceName": "db", "enabled": true}, {"serviceName": "transform", "enabled": true}],
  "applicationRoot": "./web/apps/",
  "applications": [{"serviceName": "explorer", "folderName": "sql-explorer", "enabled": true}],
  "integrationServices": [{"serviceName": "modbus", "enabled": false}],
  "transformServices": [], "otherServices": [], "storeAndForward": {},
  "requestIterationMilliseconds": 1, "requestMaxThreads": 1024, "maxConnectionsPerIpAddress": 25,
  "connInactiveTimeout": 31, "connRequestTimeout": 11, "maxDBconnCount": 2048
}`

func TestFaults(t *testing.T) {
	tests := []struct {
		name string
		file string
		want []string
	}{
		{"several at once", `{
  "listners": [],
  "apiRoot": "api",
  "listeners": [
    {"serviceName": "http8080", "port": 70000, "protocol": "http"},
    {"serviceName": "", "port": "8081", "protocol": "htpp", "enabled": "true", "adress": "::1"}
  ],
  "jsonActionApiDefaults": {
    "maxJsonApiSessions": -1,
    "defaultRetentionPeriod": "4",
    "defaultResponseOptions": [],
    "maxConnections": 5,
    "defaultDebug": "MAX"
  },
  "maxJsonApiSessions": 5,
  "storage": {"type": "redis", "dir": ""},
  "nothing": null
}`, []string{
			`services.json:2:3: /listners: is no member of services.json here; did you mean listeners?`,
			`services.json:3:14: /apiRoot: must be a path such as "/api" or "./api", without a slash at its end, and none of the server's own (/healthz, /readyz)`,
			`services.json:5:41: /listeners/0/port: must be an integer between 0 and 65535`,
			`services.json:6:21: /listeners/1/serviceName: must be a string of 1 to 64 bytes`,
			`services.json:6:33: /listeners/1/port: must be an integer between 0 and 65535, without quotes`,
			`services.json:6:53: /listeners/1/protocol: must be http or https; did you mean http?`,
			`services.json:6:72: /listeners/1/enabled: must be true or false, without quotes`,
			`services.json:6:80: /listeners/1/adress: is no member of services.json here; did you mean address?`,
			`services.json:9:27: /jsonActionApiDefaults/maxJsonApiSessions: must be an integer between 0 and 1000000000`,
			`services.json:10:31: /jsonActionApiDefaults/defaultRetentionPeriod: must be an integer between 1 and 100, without quotes`,
			`services.json:11:31: /jsonActionApiDefaults/defaultResponseOptions: must be an object, in { }`,
			`services.json:12:5: /jsonActionApiDefaults/maxConnections: stands in the wrong place; it belongs at the top level`,
			`services.json:13:21: /jsonActionApiDefaults/defaultDebug: must be none or max; did you mean max?`,
			`services.json:15:3: /maxJsonApiSessions: stands in the wrong place; it belongs in jsonActionApiDefaults`,
			`services.json:16:23: /storage/type: must be bolt or memory`,
			`services.json:16:39: /storage/dir: must be a string of 1 to 4096 bytes`,
			`services.json:17:3: /nothing: is no member of services.json here; remove it, or see the reference for the names that are`,
		}},
		{"duplicates", `{"profile": "web", "log": {"level": "info", "level": "trace"}, "profile": "nine",
 "idleTimeoutSeconds": 5, "connInactiveTimeout": 6}`, []string{
			`services.json:1:45: /log/level: the member stands twice in its object; remove one of the two`,
			`services.json:1:64: /profile: the member stands twice in its object; remove one of the two`,
			`services.json:2:27: /connInactiveTimeout: is another name for idleTimeoutSeconds, and both are there; remove one of them`,
		}},
		{"listeners against each other", `{"listeners": [
 {"serviceName": "a", "port": 8080, "protocol": "http", "address": "localhost"},
 {"serviceName": "A", "port": 8080, "protocol": "http"},
 {"serviceName": "b", "port": 8080, "protocol": "http", "enabled": false},
 {"serviceName": "c", "port": 8080, "protocol": "https", "address": "::", "tls": {"certificateFilename": "c.pem"}},
 {"serviceName": "d", "port": 8080, "protocol": "http", "address": "::1"},
 {"serviceName": "e", "port": 0, "protocol": "http"},
 {"serviceName": "f", "port": 0, "protocol": "http"}
]}`, []string{
			`services.json:3:18: /listeners/1/serviceName: is the name of an earlier listener; each needs its own`,
			`services.json:3:31: /listeners/1/port: an earlier enabled listener has the same port on the same address; change one or disable it`,
			`services.json:5:31: /listeners/3/port: an earlier enabled listener has the same port on the same address; change one or disable it`,
			`services.json:6:31: /listeners/4/port: an earlier enabled listener has the same port on the same address; change one or disable it`,
		}},
		{"tls", `{"listeners": [
 {"serviceName": "a", "port": 1, "protocol": "https"},
 {"serviceName": "b", "port": 2, "protocol": "https", "tls": {"serverKeyFilename": "b.key"}},
 {"serviceName": "c", "port": 3, "protocol": "http", "tls": {}},
 {"serviceName": "d", "port": 4, "protocol": "https", "tls": {"certificateFilename": 4}},
 {"serviceName": "e", "port": 5, "protocol": "http", "address": "*"}
]}`, []string{
			`services.json:2:2: /listeners/0/tls: an https listener needs tls with serverCertificateFilename, the path of a PEM file`,
			`services.json:3:62: /listeners/1/tls: an https listener needs tls with serverCertificateFilename, the path of a PEM file`,
			`services.json:4:61: /listeners/2/tls: belongs to listeners of the protocol https; remove it or change the protocol`,
			`services.json:5:86: /listeners/3/tls/certificateFilename: must be a string in double quotes`,
			`services.json:6:65: /listeners/4/address: plain HTTP beyond loopback lets everybody on the way read tokens and passwords; use https, a loopback address, or insecureHttp (the flag --insecure-http)`,
		}},
		{"no listener", `{"listeners": []}`, []string{`services.json:1:15: /listeners: must hold at least one enabled listener of the protocol http or https`}},
		{"none of ours", `{"listeners": [{"serviceName": "m", "port": 1883, "protocol": "mqtt"}]}`, []string{
			`services.json:1:15: /listeners: must hold at least one enabled listener of the protocol http or https`,
		}},
		{"a member that is required", `{"listeners": [{"port": 1, "enabled": true}]}`, []string{
			`services.json:1:16: /listeners/0: lacks the member serviceName, which is required: name of the listener in logs and for ` + "`manageService`" + `; no two alike`,
			`services.json:1:16: /listeners/0: lacks the member protocol, which is required: http or https; listeners of FairCom's MQTT protocols are ignored with a warning`,
		}},
		{"apis", `{"apis": [{"serviceName": "sesion"}, {"serviceName": "hub", "enabled": false}], "jsonActionApiDefaults": {"defaultApi": "hub"}}`, []string{
			`services.json:1:27: /apis/0/serviceName: must be admin, session or hub; did you mean session?`,
			`services.json:1:121: /jsonActionApiDefaults/defaultApi: names an api that is not enabled in apis; enable it or choose another`,
		}},
		{"no api", `{"apis": [{"serviceName": "admin", "enabled": false}, {"serviceName": "session", "enabled": false}, {"serviceName": "hub", "enabled": false}]}`, []string{
			`services.json:1:10: /apis: must leave at least one of admin, session and hub enabled`,
		}},
		{"realms", `{"realms": [
 {"name": "native", "type": "trusted"},
 {"name": "a b", "type": "ldap"},
 {"name": "crew", "type": "trusted", "roles": ["x", "x", "y z", 1]},
 {"name": "Crew", "type": "native", "allowServerRoles": true},
 {"name": "Native", "type": "native"}
]}`, []string{
			`services.json:2:29: /realms/0/type: the realm native is always of the type native; give the other one a name of its own`,
			`services.json:3:11: /realms/1/name: must be a name of letters, digits, ".", "_", "-" and "/"`,
			`services.json:3:26: /realms/1/type: must be native or trusted`,
			`services.json:4:53: /realms/2/roles/1: stands in the array already; remove one of the two`,
			`services.json:4:58: /realms/2/roles/2: must be the name of a role: letters, digits, ".", "_" and "-"`,
			`services.json:4:65: /realms/2/roles/3: must be a string in double quotes: the name of a role: letters, digits, ".", "_" and "-"`,
			`services.json:5:11: /realms/3/name: is the name of an earlier realm; each needs its own`,
			`services.json:5:57: /realms/3/allowServerRoles: belongs to realms of the type trusted; remove it`,
			`services.json:6:11: /realms/4/name: is the name of an earlier realm; each needs its own`,
			`services.json:6:11: /realms/4/name: differs from native by case alone; choose another name`,
		}},
		{"addresses and names", `{"trustedProxies": ["10.0.0.1/8", "::ffff:10.0.0.1", "proxy", "10.0.0.1", "10.0.0.1/32"],
 "allowedHosts": ["http://a.example", "a.example:0", "a..example", "10.1.2.300", "a.example:443"],
 "allowedOrigins": ["a.example", "https://a.example/", "https://a.example:0", "ftp://a.example", "https://a.example", "https://A.example:443"],
 "listeners": [{"serviceName": "a", "port": 1, "protocol": "http", "address": "127.0.0.1:80"}],
 "apiRoot": "/healthz"}`, []string{
			`services.json:1:21: /trustedProxies/0: must be ` + aPrefix,
			`services.json:1:35: /trustedProxies/1: must be ` + aPrefix,
			`services.json:1:54: /trustedProxies/2: must be ` + aPrefix,
			`services.json:1:75: /trustedProxies/4: stands in the array already; remove one of the two`,
			`services.json:2:19: /allowedHosts/0: must be ` + aHost,
			`services.json:2:39: /allowedHosts/1: must be ` + aHost,
			`services.json:2:54: /allowedHosts/2: must be ` + aHost,
			`services.json:2:68: /allowedHosts/3: must be ` + aHost,
			`services.json:3:21: /allowedOrigins/0: must be ` + anOrigin,
			`services.json:3:34: /allowedOrigins/1: must be ` + anOrigin,
			`services.json:3:56: /allowedOrigins/2: must be ` + anOrigin,
			`services.json:3:79: /allowedOrigins/3: must be ` + anOrigin,
			`services.json:3:119: /allowedOrigins/5: stands in the array already; remove one of the two`,
			`services.json:4:79: /listeners/0/address: must be an IP address, such as 127.0.0.1, or a name of this machine, or "*" for all; the port is a member of its own`,
			`services.json:5:13: /apiRoot: must be a path such as "/api" or "./api", without a slash at its end, and none of the server's own (/healthz, /readyz)`,
		}},
		{"a cap below what it caps", `{"profile": "web", "jsonActionApiDefaults": {
 "largestIdleConnectionTimeoutSeconds": 604800,
 "largestMaxSessionTimeoutSeconds": 600}}`, []string{
			`services.json:2:41: /jsonActionApiDefaults/largestIdleConnectionTimeoutSeconds: must not be less than the idle times that sessions have without asking, of which 0 is the longest`,
			`services.json:3:37: /jsonActionApiDefaults/largestMaxSessionTimeoutSeconds: must not be less than maxSessionTimeoutSeconds, of which 0 is the longest`,
		}},
		{"a realm beyond a cap", `{"jsonActionApiDefaults": {
 "largestIdleConnectionTimeoutSeconds": 3600, "largestMaxSessionTimeoutSeconds": 600, "maxSessionTimeoutSeconds": 600, "expiryJitterPercent": 26, "idleToleranceSeconds": 601},
 "realms": [{"name": "slow", "type": "trusted", "idleConnectionTimeoutSeconds": 3601, "rememberMeIdleTimeoutSeconds": 3602, "maxSessionTimeoutSeconds": 601},
  {"name": "just", "type": "trusted", "idleConnectionTimeoutSeconds": 3600, "rememberMeIdleTimeoutSeconds": 3600, "maxSessionTimeoutSeconds": 600}]}`, []string{
			`services.json:2:143: /jsonActionApiDefaults/expiryJitterPercent: must be an integer between 0 and 25`,
			`services.json:2:171: /jsonActionApiDefaults/idleToleranceSeconds: must be an integer between 0 and 600`,
			`services.json:3:81: /realms/0/idleConnectionTimeoutSeconds: must not be more than largestIdleConnectionTimeoutSeconds of jsonActionApiDefaults`,
			`services.json:3:119: /realms/0/rememberMeIdleTimeoutSeconds: must not be more than largestIdleConnectionTimeoutSeconds of jsonActionApiDefaults`,
			`services.json:3:153: /realms/0/maxSessionTimeoutSeconds: must not be more than largestMaxSessionTimeoutSeconds of jsonActionApiDefaults`,
		}},
		{"an unknown profile", `{"profile": "fairkom", "lgo": {}}`, []string{
			`services.json:1:13: /profile: must be faircom, fusion, am, clerk or web; did you mean faircom?`,
			`services.json:1:24: /lgo: is no member of services.json here; did you mean log?`,
		}},
		{"numbers that are no integers", `{"maxConnections": 1e3, "maxRequestBytes": 2048.0, "maxRequestMembers": 99999999999999999999}`, []string{
			`services.json:1:20: /maxConnections: must be an integer between 1 and 1000000`,
			`services.json:1:44: /maxRequestBytes: must be an integer between 1024 and 67108864`,
			`services.json:1:73: /maxRequestMembers: must be an integer between 16 and 1000000`,
		}},
		{"names that forge lines", `{"a\nservices.json:1:1: /b": 1, "~/": 1, "` + strings.Repeat("~", 300) + `": 1, "` + strings.Repeat("~", 300) + `": 1}`, []string{
			`services.json:1:2: /a` + "\ufffd" + `services.json:1:1: ~1b: is no member of services.json here; remove it, or see the reference for the names that are`,
			`services.json:1:33: /~0~1: is no member of services.json here; remove it, or see the reference for the names that are`,
			`services.json:1:42: /` + strings.Repeat("~0", 99) + `~…: is no member of services.json here; remove it, or see the reference for the names that are`,
			`services.json:1:349: /` + strings.Repeat("~0", 99) + `: the member stands twice in its object; remove one of the two`,
		}},
		{"no object", `[]`, []string{`services.json:1:1: must be an object, in { }`}},
		{"an empty file", " \n", []string{`services.json:2:1: the file is empty; without any file the built-in configuration is used`}},
		{"the tutorial as it is printed", strings.Replace(tutorial, `Defaults":`, `Defaults"`, 1), []string{
			`services.json:3:1: /jsonActionApiDefaults: a ":" after a member's name, or a "," between two, is missing before this`,
		}},
		{"the tutorial without braces", strings.Trim(tutorial, "{}"), []string{
			`services.json:2:24: the file must be one object, with { before everything and } behind it`,
		}},
		{"properties that sessions may not have", `{
  "sessionProperties": [
    {"name": "theme"}, {"name": "a b"}, {"name": "a/b"}, {"name": "Sessiond.x"}, {"name": "UserName"}, {"name": "theme"}, {"type": "string"},
    {"name": "n", "type": "number", "max": 9000}
  ],
  "realms": [{"name": "crew", "type": "trusted", "sessionProperties": [{"name": "theme"}, {"name": "ok"}, {"name": "ok"}, {"name": "status"}]}]
}`, []string{
			`services.json:3:33: /sessionProperties/1/name: ` + aProperty,
			`services.json:3:50: /sessionProperties/2/name: ` + aProperty,
			`services.json:3:67: /sessionProperties/3/name: is a name of the server's own; choose another one`,
			`services.json:3:91: /sessionProperties/4/name: is a name of the server's own; choose another one`,
			`services.json:3:113: /sessionProperties/5/name: is the name of an earlier property; each needs its own`,
			"services.json:3:123: /sessionProperties/6: lacks the member name, which is required: letters, digits, `.`, `_`, `-` and `:`; none of the server's own names, nor one that begins with `sessiond`",
			`services.json:4:27: /sessionProperties/7/type: must be string, integer or boolean`,
			`services.json:4:44: /sessionProperties/7/max: must be an integer between 1 and 8192`,
			`services.json:6:81: /realms/0/sessionProperties/0/name: stands in sessionProperties at the top level already, for all realms; remove one of the two`,
			`services.json:6:116: /realms/0/sessionProperties/2/name: is the name of an earlier property; each needs its own`,
			`services.json:6:132: /realms/0/sessionProperties/3/name: is a name of the server's own; choose another one`,
		}},
		{"a comma too many", `{"profile": "web",}`, []string{`services.json:1:19: the comma before this is one too many; remove it`}},
		{"a comment", "{\n  // mine\n  \"profile\": \"web\"}", []string{`services.json:2:3: JSON has no comments; remove this one`}},
		{"cut off", `{"profile": "web"`, []string{`services.json:1:18: the JSON text ends too early; a closing brace or bracket is missing`}},
		{"not UTF-8", "{\"profile\": \"\xff\"}", []string{`services.json:1:14: /profile: the JSON text must be UTF-8`}},
		{"too large", `{"a": "` + strings.Repeat("x", 1<<20) + `"}`, []string{`services.json:1:1: the file is larger than 1 MiB`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Parse([]byte(tt.file), "services.json")
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

const (
	aProperty = `must be a name of letters, digits, ".", "_", "-" and ":"`

	aPrefix  = `an IP address or a prefix such as 10.0.0.0/8 or fd00::/8, without address bits after the prefix, and IPv4 in its own form`
	aHost    = `a host name such as sessions.example.com, perhaps with a port, without a scheme; IP addresses need no entry`
	anOrigin = `an origin such as https://app.example.com: a scheme, a host and perhaps a port, nothing after them`
)

func TestWarnings(t *testing.T) {
	c, err := config.Parse([]byte(fairCom), "services.json")
	if err != nil {
		t.Fatal(err)
	}
	const foreign = "is FairCom's and has no meaning here; it is ignored"
	const foreignValue = "is FairCom's and has no meaning here, nor has what it names; both are ignored"
	want := []string{
		"services.json:5:86: /listeners/1/tls/allowedCipherSuites: has no effect: TLS 1.2 and 1.3 with their secure suites are allowed, whatever stands here",
		"services.json:6:59: /listeners/2/protocol: " + foreignValue,
		"services.json:7:61: /listeners/3/protocol: " + foreignValue,
		"services.json:9:3: /mqtt: " + foreign,
		"services.json:10:43: /jsonActionApiDefaults/defaultApi: " + foreignValue,
		"services.json:10:81: /jsonActionApiDefaults/defaultStringFormat: " + foreign,
		"services.json:10:153: /jsonActionApiDefaults/defaultResponseOptions/dataFormat: " + foreignValue,
		"services.json:10:164: /jsonActionApiDefaults/defaultResponseOptions/variantFormat: " + foreign,
		"services.json:12:69: /apis/1/serviceName: " + foreignValue,
		"services.json:12:109: /apis/2/serviceName: " + foreignValue,
		"services.json:12:149: /apis/3/serviceName: " + foreignValue,
		"services.json:13:3: /applicationRoot: " + foreign,
		"services.json:14:3: /applications: " + foreign,
		"services.json:15:3: /integrationServices: " + foreign,
		"services.json:16:3: /transformServices: " + foreign,
		"services.json:16:28: /otherServices: " + foreign,
		"services.json:16:49: /storeAndForward: " + foreign,
		"services.json:17:3: /requestIterationMilliseconds: " + foreign,
		"services.json:17:38: /requestMaxThreads: " + foreign,
		"services.json:18:56: /maxDBconnCount: " + foreign,
	}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if c.MaxConnectionsPerIP != 25 || c.IdleTimeout != 31 || c.RequestTimeout != 11 || c.Defaults.DefaultAPI != api.Hub || len(c.Listeners) != 2 {
		t.Errorf("what has a meaning was not taken: %s", c.JSON())
	}

	c = parse(t, `{"profile": "web", "forwardedHeader": "Forwarded", "jsonActionApiDefaults": {"idleConnectionTimeoutSeconds": 3600}}`)
	want = []string{
		"services.json:1:39: /forwardedHeader: has no effect without trustedProxies",
		"services.json:1:110: /jsonActionApiDefaults/idleConnectionTimeoutSeconds: stands before what the profile says, which is 604800",
	}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTutorialBlock(t *testing.T) {
	want := parse(t, `{}`)
	want.Defaults.DefaultDebug = "max"
	want.Defaults.PermanentSessions = true
	if diff := cmp.Diff(want, parse(t, tutorial), sameConfig...); diff != "" {
		t.Errorf("the tutorial is the defaults but for debug and permanent sessions (-want +got):\n%s", diff)
	}
	inside := strings.TrimSuffix(strings.TrimPrefix(tutorial, "{"), "}")
	beside := parse(t, `{"profile": "web",`+inside+`, "maxConnections": 5}`)
	if beside.Defaults.IdleConnectionTimeoutSeconds != 3600 || beside.MaxConnections != 5 {
		t.Errorf("the tutorial in a file: %s", beside.JSON())
	}
}

func TestProfiles(t *testing.T) {
	const hour, day = 3600, 24 * 3600
	for profile, want := range map[string][4]int64{
		"":        {hour, 0, 0, 0},
		"faircom": {hour, 0, 0, 0},
		"fusion":  {hour, 8 * hour, 0, 0},
		"am":      {hour / 2, 2 * hour, 0, 0},
		"clerk":   {0, 7 * day, 0, 30 * day},
		"web":     {7 * day, 0, 30 * day, 0},
	} {
		// The shipped file is what people add a profile to, so it pins none of its members.
		file := string(config.Shipped())
		if profile != "" {
			file = strings.Replace(file, "{", `{"profile": "`+profile+`",`, 1)
		}
		d := parse(t, file).Defaults
		got := [4]int64{d.IdleConnectionTimeoutSeconds, d.MaxSessionTimeoutSeconds, d.RememberMeIdleSeconds, d.AbandonAfterSeconds}
		if got != want {
			t.Errorf("%q: %v, want %v", profile, got, want)
		}
	}
	d := parse(t, `{"jsonActionApiDefaults": {"maxSessionTimeoutSeconds": 0}, "profile": "fusion"}`).Defaults
	if d.MaxSessionTimeoutSeconds != 0 || d.IdleConnectionTimeoutSeconds != hour {
		t.Errorf("a member that is named does not win over the profile: %+v", d)
	}
}

func TestDefaults(t *testing.T) {
	shipped, empty := config.Default(), parse(t, `{}`)
	if !shipped.Defaults.PermanentSessions || empty.Defaults.PermanentSessions {
		t.Error("permanent sessions: the shipped file says true, absent means false")
	}
	shipped.Defaults.PermanentSessions = false
	shipped.Listeners[0].Description = ""
	if diff := cmp.Diff(empty, shipped, sameConfig...); diff != "" {
		t.Errorf("the shipped file differs from an empty one (-empty +shipped):\n%s", diff)
	}
	d := empty.Defaults
	if d.LatestAccessSeconds != 60 || d.MaxSessions != 1024 || d.MaxSessionsPerIPAddress != 50 || d.MaxSessionsPerUsername != 50 || d.MaxSessionsPerClient != 0 {
		t.Errorf("limits: %+v", d)
	}
	if d.Retention() != 4*7*24*time.Hour || d.DefaultAPI != api.Hub || len(shipped.Warnings) != 0 {
		t.Errorf("defaults: %+v, warnings %v", d, shipped.Warnings)
	}
}

func TestPropertiesOfARealm(t *testing.T) {
	c := parse(t, `{
		"sessionProperties": [{"name": "theme"}],
		"realms": [{"name": "crew", "type": "trusted", "sessionProperties": [{"name": "seats", "type": "integer", "max": 7}]}]
	}`)
	theme, seats := config.Property{Name: "theme", Type: config.StringProperty, Max: 1024}, config.Property{Name: "seats", Type: config.IntegerProperty, Max: 7}
	for realm, want := range map[string][]config.Property{"native": {theme}, "crew": {theme, seats}, "gone": {theme}} {
		if diff := cmp.Diff(want, c.PropertiesOf(realm)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", realm, diff)
		}
	}
}

func TestNativeRealmIsAlwaysThere(t *testing.T) {
	for _, realms := range []string{`[]`, `[{"name": "crew", "type": "trusted"}]`, `[{"name": "crew", "type": "trusted"}, {"name": "native", "type": "native"}]`} {
		found := 0
		for _, realm := range parse(t, `{"realms": `+realms+`}`).Realms {
			if realm.Name == config.Native && realm.Type == config.Native {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: native is there %d times", realms, found)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Chdir(t.TempDir())
	none, err := config.Load("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), none, sameConfig...); diff != "" {
		t.Errorf("without a file (-default +got):\n%s", diff)
	}
	if _, err := config.Load("other.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path that is not there: %v", err)
	}
	write(t, "services.json", "\ufeff"+`{"profile": "am"}`)
	if c, err := config.Load(""); err != nil || c.Profile != "am" {
		t.Errorf("./services.json: %v, %v", c, err)
	}
	path := filepath.Join(t.TempDir(), "mine.json")
	write(t, path, `{"profile": 1}`)
	_, err = config.Load(path)
	faults, ok := errors.AsType[*config.Error](err)
	if !ok || len(faults.Faults) != 1 || faults.Faults[0].Line != 1 || faults.Faults[0].Pointer != "/profile" || !strings.HasPrefix(err.Error(), path+":1:13: /profile: ") {
		t.Errorf("a file with a fault: %v", err)
	}
}

func TestOverridesComeBeforeTheFileAndAreChecked(t *testing.T) {
	listen := func(c *config.Config) {
		c.Listeners = []config.Listener{{ServiceName: "http", Address: "0.0.0.0", Port: 1, Protocol: config.HTTP, Enabled: true}}
	}
	insecure := func(c *config.Config) { c.InsecureHTTP = true }
	if c, err := config.Parse([]byte(`{}`), "services.json", listen, insecure); err != nil || c.Listeners[0].Port != 1 {
		t.Errorf("both: %v", err)
	}
	_, err := config.Parse([]byte(`{}`), "services.json", listen)
	if faults, ok := errors.AsType[*config.Error](err); !ok || len(faults.Faults) != 1 || faults.Faults[0].Line != 0 || faults.Faults[0].Pointer != "" {
		t.Errorf("an open listener without the flag: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{string(config.Shipped()), tutorial, fairCom, everything, `{}`, `[]`, `{"a~/b": 1, "a~/b": {"` + strings.Repeat("~", 300) + `": 1, "\u0000": []}}`} {
		f.Add([]byte(seed))
	}
	schema := compileSchema(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse(data, "services.json")
		if err != nil {
			faults, ok := errors.AsType[*config.Error](err)
			if !ok || c != nil || len(faults.Faults) == 0 || len(strings.Split(err.Error(), "\n")) != len(faults.Faults) {
				t.Fatalf("no list of faults: %v", err)
			}
			lines := strings.Split(string(data), "\n")
			for _, fault := range faults.Faults {
				if fault.Line < 1 || fault.Line > len(lines) || fault.Column < 1 || fault.Column > utf8.RuneCountInString(lines[fault.Line-1])+1 {
					t.Fatalf("no such place: %+v", fault)
				}
				if !pointer(fault.Pointer) || fault.Message == "" {
					t.Fatalf("no pointer or message: %+v", fault)
				}
			}
			return
		}
		if err := schema.Validate(decoded(t, strings.TrimPrefix(string(data), "\ufeff"))); err != nil {
			t.Fatalf("the schema refuses what was accepted: %v", err)
		}
		again, err := config.Parse(c.JSON(), "again")
		if err != nil {
			t.Fatalf("what was accepted is not accepted again: %v\n%s", err, c.JSON())
		}
		if diff := cmp.Diff(c, again, sameConfig...); diff != "" {
			t.Fatalf("read again, it differs: %s", diff)
		}
	})
}

// pointer reports whether s is a JSON Pointer.
func pointer(s string) bool {
	unescaped := strings.NewReplacer("~0", "", "~1", "").Replace(s)
	return (s == "" || s[0] == '/') && !strings.Contains(unescaped, "~") && utf8.ValidString(s)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
