package config_test

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"sessiond/internal/config"
)

func TestSchemaInDocsIsCurrent(t *testing.T) {
	got, err := os.ReadFile("../../docs/services.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(config.Schema()), string(got)); diff != "" {
		t.Errorf("docs/services.schema.json is old; make docs writes it (-want +got):\n%s", diff)
	}
}

func TestShippedFileAtTheTopLevelIsTheEmbeddedOne(t *testing.T) {
	got, err := os.ReadFile("../../services.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, config.Shipped()) {
		t.Error("services.json and internal/config/services.json differ; they are copies of each other")
	}
}

func TestSchemaTakesWhatTheServerTakes(t *testing.T) {
	schema := compileSchema(t)
	for name, file := range map[string]string{
		"shipped":       string(config.Shipped()),
		"tutorial":      tutorial,
		"empty":         `{}`,
		"everything":    everything,
		"FairCom's own": fairCom,
	} {
		if _, err := config.Parse([]byte(file), "services.json"); err != nil {
			t.Errorf("%s: Parse: %v", name, err)
		}
		if err := schema.Validate(decoded(t, file)); err != nil {
			t.Errorf("%s: schema: %v", name, err)
		}
	}
}

func TestSchemaRefusesWhatEditorsShouldMark(t *testing.T) {
	schema := compileSchema(t)
	for _, file := range []string{
		`[]`,
		`{"listners": []}`,
		`{"listeners": [{"serviceName": "http8080", "port": 65536, "protocol": "http"}]}`,
		`{"listeners": [{"port": 1, "protocol": "http"}]}`,
		`{"profile": "wed"}`,
		`{"jsonActionApiDefaults": {"maxJsonApiSessions": "1024"}}`,
		`{"jsonActionApiDefaults": {"defaultResponseOptions": {"numberFormat": "digits"}}}`,
		`{"apiRoot": "api/"}`,
		`{"trustedProxies": ["10.0.0.0/8", "10.0.0.0/8"]}`,
	} {
		if err := schema.Validate(decoded(t, file)); err == nil {
			t.Errorf("%s: the schema takes it", file)
		}
	}
}

func TestReferenceNamesEveryMember(t *testing.T) {
	reference := string(config.Reference())
	var walk func(schema map[string]any)
	count := 0
	walk = func(schema map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range properties {
			property, _ := p.(map[string]any)
			if name != "$schema" && !strings.Contains(reference, name+"`") {
				t.Errorf("%s is missing", name)
			}
			count++
			walk(property)
			items, _ := property["items"].(map[string]any)
			walk(items)
		}
	}
	root, _ := decoded(t, string(config.Schema())).(map[string]any)
	walk(root)
	if count < 90 {
		t.Errorf("only %d members were looked for", count)
	}
}

func TestJSONIsReadBackToTheSame(t *testing.T) {
	for name, file := range map[string]string{"shipped": string(config.Shipped()), "empty": `{}`, "everything": everything, "FairCom's own": fairCom} {
		first := parse(t, file)
		again := parse(t, string(first.JSON()))
		if diff := cmp.Diff(first, again, sameConfig...); diff != "" {
			t.Errorf("%s (-first +again):\n%s", name, diff)
		}
	}
}

func TestDiffNamesWhatWaitsForARestart(t *testing.T) {
	tests := []struct {
		old, changed string
		want         []string
	}{
		{`{}`, `{}`, nil},
		{`{}`, `{"jsonActionApiDefaults": {"maxJsonApiSessions": 1, "idleConnectionTimeoutSeconds": 5, "enablePermanentJsonApiSessions": true}}`, nil},
		{`{}`, `{"profile": "web", "echoAuthToken": false, "allowedHosts": ["a.example"], "realms": [{"name": "crew", "type": "trusted"}], "apis": [{"serviceName": "hub", "enabled": false}]}`, nil},
		{`{}`, `{"apiRoot": "/api"}`, nil},
		{`{"apiRoot": "/session"}`, `{"apiRoot": "/api", "storage": {"dir": "/data"}}`, []string{"apiRoot", "storage"}},
		{`{}`, `{"listeners": [{"serviceName": "http8080", "port": 8081, "protocol": "http"}]}`, []string{"listeners"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, config.Diff(parse(t, tt.old), parse(t, tt.changed))); diff != "" {
			t.Errorf("%s to %s (-want +got):\n%s", tt.old, tt.changed, diff)
		}
	}
}

// everything names each member that has a meaning here, none with its default.
const everything = `{
  "$schema": "./services.schema.json",
  "listeners": [
    {"serviceName": "https8443", "description": "for the world", "address": "0.0.0.0", "port": 8443, "protocol": "https",
     "tls": {"serverCertificateFilename": "./server.pem", "serverKeyFilename": "./server.key", "allowedCipherSuites": ""}},
    {"serviceName": "https8444", "address": "::1", "port": 8444, "protocol": "https", "enabled": false, "tls": {"certificateFilename": "./other.pem"}}
  ],
  "apiRoot": "./v1/sessions",
  "apis": [{"serviceName": "hub", "enabled": false}],
  "jsonActionApiDefaults": {
    "defaultApi": "session", "defaultDebug": "max", "defaultDatabaseName": "", "defaultOwnerName": "me",
    "defaultBinaryFormat": "base64", "defaultVariantFormat": "string", "transformBufferInitialBytes": 4096,
    "defaultResponseOptions": {"numberFormat": "string", "dataFormat": "arrays", "binaryFormat": "byteArray",
      "omit": ["errorMessage"], "includeFields": ["a", "b"], "excludeFields": ["b"]},
    "idleConnectionTimeoutSeconds": 10, "maxSessionTimeoutSeconds": 20, "rememberMeIdleTimeoutSeconds": 30, "abandonAfterSeconds": 40, "expiryJitterPercent": 5, "idleToleranceSeconds": 45,
    "largestIdleConnectionTimeoutSeconds": 50, "largestMaxSessionTimeoutSeconds": 60,
    "idleCursorTimeoutSeconds": 70, "rotationGraceSeconds": 71, "latestAccessTimeUpdateFrequencySeconds": 8,
    "maxJsonApiSessions": 9, "maxJsonApiSessionsPerIpAddress": 10, "maxJsonApiSessionsPerUsername": 11, "maxJsonApiSessionsPerClient": 12,
    "onSessionLimit": {"maxJsonApiSessions": "evictAll", "maxJsonApiSessionsPerIpAddress": "evictOldest", "maxJsonApiSessionsPerUsername": "ask", "maxJsonApiSessionsPerClient": "evictNextToExpire"},
    "enablePermanentJsonApiSessions": true,
    "defaultRetentionPolicy": "neverPurge", "defaultRetentionUnit": "day", "defaultRetentionPeriod": 13
  },
  "profile": "web",
  "realms": [
    {"name": "native", "type": "native", "roles": ["auditor"], "idleConnectionTimeoutSeconds": 14},
    {"name": "shop/eu", "type": "trusted", "allowServerRoles": true, "maxSessionTimeoutSeconds": 15, "rememberMeIdleTimeoutSeconds": 25,
     "sessionProperties": [{"name": "cart", "type": "integer"}]}
  ],
  "sessionProperties": [{"name": "am.protected:theme", "max": 24}, {"name": "trial", "type": "boolean"}],
  "expiringNoticeSeconds": [3600],
  "webhooks": [{"name": "crm", "url": "https://crm.example/hooks?from=sessiond", "secretFile": "./crm.secret", "kinds": ["sessionEnded"], "realms": ["shop/eu"], "enabled": false, "timeoutSeconds": 24}],
  "rolesMode": "frozen", "recentLoginSeconds": 23, "passwordContextWords": ["acme"],
  "trustedProxies": ["10.0.0.0/8", "fd00::1"],
  "forwardedHeader": "Forwarded",
  "allowedHosts": ["Sessions.Example.com"],
  "allowedOrigins": ["https://App.example.com:443", "http://[::1]:3000"],
  "insecureHttp": true,
  "maxRequestBytes": 1024, "maxRequestMembers": 16, "maxConnections": 17, "maxConnectionsPerIpAddress": 18,
  "requestTimeoutSeconds": 19, "idleTimeoutSeconds": 21, "drainTimeoutSeconds": 22,
  "echoAuthToken": false, "httpStatusFromErrorCode": true,
  "storage": {"type": "memory", "dir": "/var/lib/sessiond", "revocationLog": "/mnt/revocations.log", "backupBytesPerSecond": 26, "ballastBytes": 1048576, "maxBytes": 1073741824},
  "log": {"level": "debug", "format": "console"}
}`

func TestEverythingIsEverything(t *testing.T) {
	file := parse(t, everything)
	blank := parse(t, `{}`)
	var leaves func(path string, a, b any)
	leaves = func(path string, a, b any) {
		inner, isObject := a.(map[string]any)
		other, _ := b.(map[string]any)
		if !isObject {
			if cmp.Equal(a, b) {
				t.Errorf("%s has its default", path)
			}
			return
		}
		for name := range inner {
			leaves(path+"/"+name, inner[name], other[name])
		}
	}
	leaves("", decoded(t, string(file.JSON())), decoded(t, string(blank.JSON())))
}

var sameConfig = []cmp.Option{cmpopts.EquateComparable(netip.Prefix{}), cmpopts.IgnoreFields(config.Config{}, "Warnings")}

func compileSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("services.schema.json", decoded(t, string(config.Schema()))); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("services.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func decoded(t testing.TB, text string) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func parse(t testing.TB, file string) *config.Config {
	t.Helper()
	c, err := config.Parse([]byte(file), "services.json")
	if err != nil {
		t.Fatal(err)
	}
	return c
}
