package wire_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// canary stands in values. It may never be seen in an error.
const canary = "CANARY"

func TestEnvelopeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		code       api.Code
		pointer    string
	}{
		{"nothing", ``, api.BadEnvelope, ""},
		{"white space", " \n\t", api.BadEnvelope, ""},
		{"a number", `5`, api.BadEnvelope, ""},
		{"null", `null`, api.BadEnvelope, ""},
		{"a string", `"CANARY"`, api.BadEnvelope, ""},
		{"a byte order mark", "\xef\xbb\xbf{}", api.BadEnvelope, ""},
		{"an end too early", `{"action":"CANARY`, api.BadEnvelope, "/action"},
		{"two values", `{"action":"a"}{"action":"b"}`, api.BadEnvelope, ""},
		{"trailing bytes", `{"action":"a"} CANARY`, api.BadEnvelope, ""},
		{"a trailing NUL", "{\"action\":\"a\"}\x00", api.BadEnvelope, ""},
		{"a trailing comma", `{"action":"a",}`, api.BadEnvelope, ""},
		{"a name without quotes", `{action:"CANARY"}`, api.BadEnvelope, ""},
		{"single quotes", `{'action':'CANARY'}`, api.BadEnvelope, ""},
		{"a comment", `{"action":"a"/*CANARY*/}`, api.BadEnvelope, ""},
		{"a missing comma", `{"action":"a" "api":"b"}`, api.BadEnvelope, ""},
		{"a missing colon", `{"action" "CANARY"}`, api.BadEnvelope, "/action"},
		{"a leading zero", `{"action":"a","requestId":01}`, api.BadEnvelope, ""},
		{"a lone minus", `{"action":"a","x":-}`, api.BadEnvelope, "/x"},
		{"half a number", `{"action":"a","x":1e}`, api.BadEnvelope, "/x"},
		{"a raw control character", "{\"action\":\"a\",\"params\":{\"x\":\"CANARY\n\"}}", api.BadEnvelope, "/params/x"},
		{"bad UTF-8", "{\"action\":\"a\",\"params\":{\"x\":\"CANARY\xff\"}}", api.BadEnvelope, "/params/x"},
		{"bad UTF-8 in a name", "{\"action\":\"a\",\"\xff\":1}", api.BadEnvelope, ""},
		{"a lone surrogate", `{"action":"a","params":{"x":"\ud800CANARY"}}`, api.BadEnvelope, "/params/x"},
		{"a bad escape", `{"action":"a","params":{"x":"\qCANARY"}}`, api.BadEnvelope, "/params/x"},
		{"a literal with a capital", `{"action":"a","x":True}`, api.BadEnvelope, "/x"},

		{"the tutorial's own request", `{"action":"createSession","params":{"username":"CHANGE","username":"CHANGE"}}`, api.DuplicateMember, "/params/username"},
		{"a duplicate at the top", `{"action":"a","action":"b"}`, api.DuplicateMember, "/action"},
		{"a duplicate in an escape", `{"action":"a","\u0061ction":"b"}`, api.DuplicateMember, "/action"},
		{"a duplicate in requestId", `{"action":"a","requestId":{"a":1,"a":2}}`, api.DuplicateMember, "/requestId/a"},
		{"a duplicate in an unknown member", `{"action":"a","x":[0,{"y":{"a/b":1,"a/b":2}}]}`, api.DuplicateMember, "/x/1/y/a~1b"},
		{"a duplicate of null", `{"action":"a","authToken":null,"authToken":"CANARY"}`, api.DuplicateMember, "/authToken"},

		{"no action", `{}`, api.MissingParam, "/action"},
		{"an empty action", `{"action":""}`, api.MissingParam, "/action"},
		{"action null", `{"action":null}`, api.MissingParam, "/action"},
		{"another letter case", `{"Action":"a"}`, api.MissingParam, "/action"},
		{"the Kelvin sign", `{"action":"a","authToKen":"CANARY","debug":1}`, api.BadParam, "/debug"},
		{"action a number", `{"action":5}`, api.BadParam, "/action"},
		{"api an array", `{"action":"a","api":["CANARY"]}`, api.BadParam, "/api"},
		{"authToken a number", `{"action":"a","authToken":5}`, api.BadParam, "/authToken"},
		{"apiVersion a number", `{"action":"a","apiVersion":1.0}`, api.BadParam, "/apiVersion"},
		{"debug unknown", `{"action":"a","debug":"CANARY"}`, api.BadParam, "/debug"},
		{"params an array", `{"action":"a","params":["CANARY"]}`, api.BadParam, "/params"},
		{"params a string", `{"action":"a","params":"CANARY"}`, api.BadParam, "/params"},
		{"a long requestId", `{"action":"a","requestId":"` + strings.Repeat("x", 255) + `"}`, api.BadParam, "/requestId"},
		{"responseOptions a string", `{"action":"a","responseOptions":"CANARY"}`, api.BadParam, "/responseOptions"},
		{"an unknown option", `{"action":"a","responseOptions":{"x":"CANARY"}}`, api.UnknownParam, "/responseOptions/x"},
		{"an unknown format", `{"action":"a","responseOptions":{"numberFormat":"CANARY"}}`, api.BadParam, "/responseOptions/numberFormat"},
		{"a number among names", `{"action":"a","responseOptions":{"omit":["CANARY",5]}}`, api.BadParam, "/responseOptions/omit/1"},

		{"depth beyond the limit", `{"action":"a","params":` + strings.Repeat(`{"x":`, 31) + `{}` + strings.Repeat(`}`, 32), api.TooLarge, ""},
		{"twenty thousand brackets", strings.Repeat(`[`, 20_000), api.TooLarge, ""},
		{"too many elements", `{"action":"a","params":{"x":[` + strings.Repeat("1,", 10_000) + `1]}}`, api.TooLarge, ""},
		{"an empty batch", ` [ ] `, api.BadEnvelope, ""},
		{"a batch of 101", `[` + strings.Repeat("{},", 100) + `{}]`, api.BadEnvelope, ""},
		{"half a batch", `[{"action":"a"},`, api.BadEnvelope, ""},
		{"a batch and more", `[{"action":"a"}]{}`, api.BadEnvelope, ""},
		{"an entry that is no object", `[5]`, api.BadEnvelope, ""},
		{"an entry that is null", `[null]`, api.BadEnvelope, ""},
		{"a duplicate in a batch", `[{"action":"a","params":{"x":1,"x":2}}]`, api.DuplicateMember, "/params/x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode([]byte(tt.body))
			refused(t, err, tt.code, tt.pointer)
		})
	}
}

func TestEnvelopeTakes(t *testing.T) {
	token := api.NewSecret("t")
	for _, tt := range []struct {
		name, body string
		want       wire.Envelope
	}{
		{"the least", `{"action":"a"}`, wire.Envelope{Action: "a"}},
		{"white space everywhere", " { \"action\"\t:\r\n\"a\" } ", wire.Envelope{Action: "a"}},
		{
			"everything", `{"api":"hub","action":"a","params":{"x":[1]},"authToken":"t","requestId":7,"apiVersion":"1.0","debug":"max","responseOptions":{"omit":["x"]}}`,
			wire.Envelope{
				API: "hub", Action: "a", Params: []byte(`{"x":[1]}`), AuthToken: token, RequestID: []byte("7"), APIVersion: "1.0", Debug: "max",
				ResponseOptions: &api.ResponseOptions{Omit: []string{"x"}},
			},
		},
		{
			"null for all that is optional", `{"api":null,"action":"a","params":null,"authToken":null,"requestId":null,"apiVersion":null,"debug":null,"responseOptions":null}`,
			wire.Envelope{Action: "a"},
		},
		{"an empty token", `{"action":"a","authToken":""}`, wire.Envelope{Action: "a"}},
		{"escapes", `{"\u0061ction":"caf\u00e9 \ud83d\ude00\n","authToken":"\u0074"}`, wire.Envelope{Action: "café 😀\n", AuthToken: token}},
		{"beyond ASCII", `{"action":"café"}`, wire.Envelope{Action: "café"}},
		{"a requestId as long as may be", `{"action":"a","requestId":"` + strings.Repeat("x", 254) + `"}`, wire.Envelope{Action: "a", RequestID: []byte(`"` + strings.Repeat("x", 254) + `"`)}},
		{"fractions", `{"action":"a","requestId":[-0.5e+10, {"x": true}]}`, wire.Envelope{Action: "a", RequestID: []byte(`[-0.5e+10, {"x": true}]`)}},
		{"unknown members", `{"x":null,"action":"a","Params":{"y":1}}`, wire.Envelope{Action: "a", Unknown: []string{"x", "Params"}}},
		{"an unknown member with a long name", `{"action":"a","` + strings.Repeat("é", 100) + `":1}`, wire.Envelope{Action: "a", Unknown: []string{strings.Repeat("é", 32)}}},
		{"the deepest", `{"action":"a","params":` + strings.Repeat(`{"x":`, 30) + `{}` + strings.Repeat(`}`, 31), wire.Envelope{Action: "a", Params: []byte(strings.Repeat(`{"x":`, 30) + `{}` + strings.Repeat(`}`, 30))}},
		{"brackets in a string", `{"action":"` + strings.Repeat(`[{\"`, 50) + `"}`, wire.Envelope{Action: strings.Repeat(`[{"`, 50)}},
		{"the deepest in a batch", `[{"action":"a","params":` + strings.Repeat(`{"x":`, 30) + `{}` + strings.Repeat(`}`, 31) + `]`, wire.Envelope{Action: "a", Params: []byte(strings.Repeat(`{"x":`, 30) + `{}` + strings.Repeat(`}`, 30))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decode([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if got.AuthToken.Reveal() != tt.want.AuthToken.Reveal() {
				t.Errorf("another authToken")
			}
			got.AuthToken, tt.want.AuthToken = api.Secret{}, api.Secret{}
			if diff := cmp.Diff(tt.want, *got, cmp.AllowUnexported(api.Secret{}), cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "Unknown" }, cmp.Comparer(func(a, b []string) bool { return cmp.Equal(append([]string{}, a...), append([]string{}, b...)) }))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What one request held may not show up in the next.
func TestDecodeResets(t *testing.T) {
	var e wire.Envelope
	if err := e.Decode([]byte(`{"api":"a","action":"b","params":{},"authToken":"t","requestId":1,"apiVersion":"1","debug":"max","responseOptions":{},"x":1}`)); err != nil {
		t.Fatal(err)
	}
	if err := e.Decode([]byte(`{"action":"c"}`)); err != nil {
		t.Fatal(err)
	}
	if e.API != "" || e.Params != nil || !e.AuthToken.IsZero() || e.RequestID != nil || e.APIVersion != "" || e.Debug != "" || e.ResponseOptions != nil || len(e.Unknown) > 0 {
		t.Errorf("left over: %+v", e)
	}
}

func TestSplitKeepsTheOrder(t *testing.T) {
	items, batch, err := wire.Split(nil, []byte(` [ {"a":"]"} , 5 ,[{}],"x\"," ] `), wire.Limits{})
	if err != nil || !batch {
		t.Fatal(batch, err)
	}
	var got []string
	for _, item := range items {
		got = append(got, string(item))
	}
	if diff := cmp.Diff([]string{`{"a":"]"}`, `5`, `[{}]`, `"x\","`}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSplitCountsMembers(t *testing.T) {
	for _, tt := range []struct {
		body    string
		members int
	}{
		{`{}`, 0},
		{`{"a,b":"[,{"}`, 1},
		{`{"a":[1,2,3],"b":{}}`, 5},
		{`[{"a":"\",\""},[]]`, 3},
	} {
		if _, _, err := wire.Split(nil, []byte(tt.body), wire.Limits{Members: max(tt.members, 1)}); err != nil {
			t.Errorf("%s is refused: %v", tt.body, err)
		}
		if tt.members < 2 {
			continue
		}
		if _, _, err := wire.Split(nil, []byte(tt.body), wire.Limits{Members: tt.members - 1}); api.FromError(err).Code != api.TooLarge {
			t.Errorf("%s has %d members, and a limit of one less answers %v", tt.body, tt.members, err)
		}
	}
}

// A name of the input may be in a pointer, within bounds.
func TestPointersAreCut(t *testing.T) {
	name := strings.Repeat("é", 150)
	for _, body := range []string{
		`{"action":"a","` + name + `":1,"` + name + `":2}`,
		`{"action":"a","x":{"` + name + `":tru}}`,
		`{"action":"a","responseOptions":{"` + name + `":1}}`,
	} {
		_, err := decode([]byte(body))
		e, ok := errors.AsType[*api.Error](err)
		if !ok || e.Data.Pointer == "" || len(e.Data.Pointer) > api.MaxPointer || !utf8.ValidString(e.Data.Pointer) || strings.Contains(e.Data.Pointer, "?") {
			t.Errorf("%.40s…: %v", body, err)
		}
	}
}

// decode is what a dispatcher does with a body of one request.
func decode(body []byte) (*wire.Envelope, error) {
	items, _, err := wire.Split(nil, body, wire.Limits{})
	if err != nil {
		return nil, err
	}
	var e wire.Envelope
	return &e, e.Decode(items[0])
}

func refused(t *testing.T, err error, code api.Code, pointer string) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok {
		t.Fatalf("error %v, want %d at %q", err, code, pointer)
	}
	if e.Code != code || e.Data.Pointer != pointer {
		t.Errorf("%d at %q (%s), want %d at %q", e.Code, e.Data.Pointer, e.Message, code, pointer)
	}
	if e.Message == "" || strings.Contains(e.Error()+e.Data.Pointer, canary) {
		t.Errorf("the error is %v at %q", e, e.Data.Pointer)
	}
}
