package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// colour is a type that reads and writes itself.
type colour struct{ name string }

var errColour = errors.New("no colour: " + canary)

func (c colour) MarshalText() ([]byte, error) { return []byte(c.name), nil }

func (c *colour) UnmarshalText(text []byte) error {
	if c.name = string(text); c.name != "red" && c.name != "blue" {
		return errColour
	}
	return nil
}

type paging struct {
	Limit  int64  `json:"limit,omitzero" doc:"How many." min:"1" max:"1000"`
	Cursor string `json:"cursor,omitzero" doc:"Where to go on." max:"8"`
}

type person struct {
	Name string `json:"name" doc:"A name." min:"1" max:"16"`
	Age  *uint8 `json:"age" doc:"In years." max:"150"`
}

// every has each kind of member.
type every struct {
	paging

	Username string             `json:"username" doc:"Who logs in." max:"64"`
	Password api.Secret         `json:"password,omitzero" doc:"The secret of it." max:"32"`
	Mode     string             `json:"mode,omitzero" doc:"How." enum:"fast,slow"`
	Colours  []colour           `json:"colours,omitzero" doc:"Which." max:"3"`
	Modes    []string           `json:"modes,omitzero" doc:"Hows." enum:"fast,slow"`
	Remember bool               `json:"rememberMe,omitzero" doc:"For long."`
	Refresh  *bool              `json:"refresh" doc:"Again."`
	Small    int8               `json:"small,omitzero" doc:"A byte."`
	Big      int64              `json:"big,omitzero" doc:"A number."`
	Count    uint64             `json:"count,omitzero" doc:"A count."`
	Code     api.Code           `json:"code,omitzero" doc:"A code."`
	Since    time.Time          `json:"since,omitzero" doc:"From when."`
	Owner    *person            `json:"owner" doc:"Whose."`
	People   []person           `json:"people,omitzero" doc:"Who else."`
	Tags     map[string]string  `json:"tags,omitzero" doc:"Free." max:"2"`
	Changes  map[string]*string `json:"changes,omitzero" doc:"null deletes."`
	Filter   wire.Raw           `json:"filter,omitzero" doc:"Anything."`
	Free     any                `json:"free,omitzero" doc:"Anything else."`
}

// Validate refuses a pair that does not go together.
func (e *every) Validate() error {
	if e.Mode == "slow" && e.Big > 0 {
		return api.Errorf(api.BadParam, "big does not go with slow").At("/params/big")
	}
	return nil
}

func TestParamsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		params, message string // what follows {"username":"u" ; what the client reads
		code            api.Code
		pointer         string
	}{
		{`,"x":"CANARY"`, "there is no such member", api.UnknownParam, "/params/x"},
		{`,"Mode":"fast"`, "there is no such member", api.UnknownParam, "/params/Mode"},
		{`,"owner":{"name":"n","x":1}`, "there is no such member", api.UnknownParam, "/params/owner/x"},
		{`,"owner":{}`, "name is required", api.MissingParam, "/params/owner/name"},
		{`,"people":[{"name":"n"},{"age":1}]`, "name is required", api.MissingParam, "/params/people/1/name"},
		{`,"owner":{"name":null}`, "name must be a string of 1 to 16 bytes", api.BadParam, "/params/owner/name"},
		{`,"owner":{"name":""}`, "name must be a string of 1 to 16 bytes", api.BadParam, "/params/owner/name"},
		{`,"owner":{"name":"ééééééééé"}`, "name must be a string of 1 to 16 bytes", api.BadParam, "/params/owner/name"},
		{`,"owner":"CANARY"`, "owner must be an object", api.BadParam, "/params/owner"},
		{`,"owner":{"name":"n","age":-1}`, "age must be an integer between 0 and 150", api.BadParam, "/params/owner/age"},
		{`,"owner":{"name":"n","age":151}`, "age must be an integer between 0 and 150", api.BadParam, "/params/owner/age"},
		{`,"limit":0`, "limit must be an integer between 1 and 1000", api.BadParam, "/params/limit"},
		{`,"limit":1.0`, "limit must be an integer", api.BadParam, "/params/limit"},
		{`,"limit":1e2`, "limit must be an integer", api.BadParam, "/params/limit"},
		{`,"limit":"5"`, "limit must be an integer", api.BadParam, "/params/limit"},
		{`,"cursor":"CANARYxxx"`, "cursor must be a string of at most 8 bytes", api.BadParam, "/params/cursor"},
		{`,"small":128`, "small must be an integer between -128 and 127", api.BadParam, "/params/small"},
		{`,"big":9223372036854775808`, "big must be an integer", api.BadParam, "/params/big"},
		{`,"count":-1`, "count must be an integer of at least 0", api.BadParam, "/params/count"},
		{`,"count":18446744073709551616`, "count must be an integer", api.BadParam, "/params/count"},
		{`,"password":5`, "password must be a string", api.BadParam, "/params/password"},
		{`,"password":"` + strings.Repeat(canary, 6) + `"`, "password must be a string of at most 32 bytes", api.BadParam, "/params/password"},
		{`,"mode":"CANARY"`, "mode must be one of fast, slow", api.BadParam, "/params/mode"},
		{`,"modes":["fast","CANARY"]`, "an element of modes must be one of fast, slow", api.BadParam, "/params/modes/1"},
		{`,"modes":{"0":"fast"}`, "modes must be an array", api.BadParam, "/params/modes"},
		{`,"colours":["CANARY"]`, "an element of colours must be a string of the form", api.BadParam, "/params/colours/0"},
		{`,"colours":["red",null]`, "an element of colours must be a string", api.BadParam, "/params/colours/1"},
		{`,"colours":["red","red","red","red"]`, "colours must be an array of at most 3 elements", api.BadParam, "/params/colours"},
		{`,"rememberMe":"true"`, "rememberMe must be true or false", api.BadParam, "/params/rememberMe"},
		{`,"refresh":0`, "refresh must be true or false", api.BadParam, "/params/refresh"},
		{`,"since":"CANARY"`, "since must be an RFC 3339 time", api.BadParam, "/params/since"},
		{`,"since":"2026-03-02T08:15:00"`, "since must be an RFC 3339 time", api.BadParam, "/params/since"},
		{`,"tags":{"a":5}`, "an element of tags must be a string", api.BadParam, "/params/tags/a"},
		{`,"tags":{"a~/":null}`, "an element of tags must be a string", api.BadParam, "/params/tags/a~0~1"},
		{`,"tags":{"a":"","b":"","c":""}`, "tags must be an object of at most 2 members", api.BadParam, "/params/tags"},
		{`,"tags":{"a":"","a":""}`, "the member stands twice", api.DuplicateMember, "/params/tags/a"},
		{`,"filter":{"a":[{"b":1,"b":1}]}`, "the member stands twice", api.DuplicateMember, "/params/filter/a/0/b"},
		{`,"username":"CANARY"`, "the member stands twice", api.DuplicateMember, "/params/username"},
		{`,"mode":"slow","big":1`, "big does not go with slow", api.BadParam, "/params/big"},
		{`,"x":`, "no well-formed JSON", api.BadEnvelope, "/params/x"},
	} {
		t.Run(tt.params, func(t *testing.T) {
			err := shape[every](t).Decode([]byte(`{"username":"u"`+tt.params+`}`), new(every))
			refused(t, err, tt.code, tt.pointer)
			if e := api.FromError(err); !strings.HasPrefix(e.Message, tt.message) {
				t.Errorf("the message is %q, want %q", e.Message, tt.message)
			}
		})
	}
	for params, code := range map[string]api.Code{``: api.BadEnvelope, `null`: api.BadParam, `[]`: api.BadParam, `"CANARY"`: api.BadParam} {
		refused(t, shape[every](t).Decode([]byte(params), new(every)), code, "/params")
	}
	for _, params := range []string{`{}`, `{"mode":"fast"}`} {
		refused(t, shape[every](t).Decode([]byte(params), new(every)), api.MissingParam, "/params/username")
	}
	refused(t, shape[every](t).Decode(nil, new(every)), api.MissingParam, "/params/username")
}

func TestParamsAreTaken(t *testing.T) {
	age, yes, text := uint8(7), true, "x"
	for params, want := range map[string]every{
		`{"username":""}`: {},
		`{"username":"u","limit":null,"password":null,"mode":null,"colours":null,"refresh":null,"owner":null,"tags":null,"filter":null,"free":null,"since":null}`: {Username: "u"},
		`{"username":"\u00e9","limit":1000,"rememberMe":true,"refresh":true,"small":-128,"big":-9223372036854775808,"count":18446744073709551615,"code":21001}`: {
			Username: "é", paging: paging{Limit: 1000}, Remember: true, Refresh: &yes, Small: -128, Big: -1 << 63, Count: 1<<64 - 1, Code: 21001,
		},
		`{"username":"u","owner":{"name":"n","age":7},"people":[{"name":"m"}],"modes":[],"colours":["red"],"tags":{"a":"b"},"changes":{"a":null,"b":"x"}}`: {
			Username: "u", Owner: &person{"n", &age}, People: []person{{Name: "m"}}, Modes: []string{}, Colours: []colour{{"red"}},
			Tags: map[string]string{"a": "b"}, Changes: map[string]*string{"a": nil, "b": &text},
		},
		`{"username":"u","since":"2026-03-02T09:15:00.5+01:00","filter": {"a" : 1},"free":[1,null]}`: {
			Username: "u", Since: time.Date(2026, 3, 2, 8, 15, 0, 5e8, time.UTC), Filter: wire.Raw(`{"a" : 1}`), Free: []any{1.0, nil},
		},
	} {
		var got every
		if err := shape[every](t).Decode([]byte(params), &got); err != nil {
			t.Errorf("%s: %v", params, err)
		} else if diff := cmp.Diff(want, got, compareAll...); diff != "" {
			t.Errorf("%s: %s", params, diff)
		}
	}
	var p every
	if err := shape[every](t).Decode([]byte(`{"username":"u","password":"pw"}`), &p); err != nil || p.Password.Reveal() != "pw" {
		t.Errorf("the password is %d bytes long, %v", len(p.Password.Reveal()), err)
	}
}

var compareAll = []cmp.Option{cmp.AllowUnexported(every{}, colour{}), cmp.Comparer(func(a, b api.Secret) bool { return a.Reveal() == b.Reveal() })}

// The request's bytes are reused once it has been answered.
func TestParamsAreCopies(t *testing.T) {
	raw := []byte(`{"username":"abc","tags":{"abc":"abc"},"filter":"abc","free":"abc","modes":["fast"]}`)
	var p, want every
	s := shape[every](t)
	if err := errors.Join(s.Decode(raw, &p), s.Decode(bytes.Clone(raw), &want)); err != nil {
		t.Fatal(err)
	}
	copy(raw, bytes.Repeat([]byte("x"), len(raw)))
	if diff := cmp.Diff(want, p, compareAll...); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeWantsItsOwnType(t *testing.T) {
	for _, into := range []any{nil, every{}, (*every)(nil), new(person)} {
		if err := shape[every](t).Decode([]byte(`{"username":""}`), into); api.FromError(err).Code != api.Internal {
			t.Errorf("into %T: %v", into, err)
		}
	}
}

func TestDescribeRefuses(t *testing.T) {
	type undocumented struct {
		A string `json:"a"`
	}
	type nameless struct {
		A string `doc:"a"`
	}
	type floating struct {
		A float64 `json:"a" doc:"a"`
	}
	type binary struct {
		A []byte `json:"a" doc:"a"`
	}
	type optioned struct {
		A string `json:"a,omitempty" doc:"a"`
	}
	type twice struct {
		paging
		A string `json:"limit" doc:"a"`
	}
	type unboundable struct {
		A bool `json:"a" doc:"a" max:"1"`
	}
	type misbounded struct {
		A string `json:"a" doc:"a" max:"x"`
	}
	type numbered struct {
		A int `json:"a" doc:"a" enum:"1,2"`
	}
	type channel struct {
		A []chan int `json:"a" doc:"a"`
	}
	type outer struct {
		A []undocumented `json:"a" doc:"a"`
	}
	for want, describe := range map[string]func() (*wire.Shape, error){
		"undocumented.A has no doc":   wire.Describe[undocumented],
		"nameless.A has no json name": wire.Describe[nameless],
		"floating.A has a type":       wire.Describe[floating],
		"binary.A has a type":         wire.Describe[binary],
		"optioned.A has a json":       wire.Describe[optioned],
		"twice.A has the name":        wire.Describe[twice],
		"unboundable.A has a max":     wire.Describe[unboundable],
		"misbounded.A has a max":      wire.Describe[misbounded],
		"numbered.A has an enum":      wire.Describe[numbered],
		"channel.A has a type":        wire.Describe[channel],
		"undocumented.A has no":       wire.Describe[outer],
		"Node":                        wire.Describe[wire.Node],
		"recursive contains itself":   wire.Describe[recursive],
		"string is no struct":         wire.Describe[string],
	} {
		if _, err := describe(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

type recursive struct {
	Inner *recursive `json:"inner" doc:"Itself."`
}

func TestFields(t *testing.T) {
	got := map[string]wire.Field{}
	for _, f := range shape[every](t).Fields() {
		got[f.Name] = f
	}
	for name, want := range map[string]string{
		"limit": "integer", "username": "string", "password": "string", "colours": "array of string", "refresh": "boolean", "since": "timestamp",
		"owner": "object", "people": "array of object", "tags": "map of string", "filter": "any", "free": "any", "code": "integer",
	} {
		f := got[name]
		if f.Type != want || f.Doc == "" || f.Required != (name == "username") || f.Secret != (name == "password") {
			t.Errorf("%s is %+v", name, f)
		}
	}
	if len(got["people"].Fields) != 2 || len(got["owner"].Fields) != 2 || *got["limit"].Max != 1000 || len(got["modes"].Enum) != 2 {
		t.Errorf("details are missing: %+v", got)
	}
}

// The schema takes what Decode takes, and refuses what it can express.
func TestSchemaAgrees(t *testing.T) {
	schema := compile(t, shape[every](t))
	for params, valid := range map[string]bool{
		`{"username":"u"}`: true,
		`{"username":"u","refresh":null,"mode":null}`:     true,
		`{"username":"u","mode":"fast","modes":["slow"]}`: true,
		`{"username":"u","owner":{"name":"n","age":150}}`: true,
		`{"username":"u","filter":[null],"free":{"a":1}}`: true,
		`{"username":"u","changes":{"a":null}}`:           true,
		`{"username":"u","owner":{"name":"éééééééé"}}`:    true,
		`{}`:                                                 false,
		`{"username":null}`:                                  false,
		`{"username":"u","x":1}`:                             false,
		`{"username":"u","mode":"other"}`:                    false,
		`{"username":"u","modes":["other"]}`:                 false,
		`{"username":"u","limit":0}`:                         false,
		`{"username":"u","limit":1.5}`:                       false,
		`{"username":"u","small":200}`:                       false,
		`{"username":"u","count":-1}`:                        false,
		`{"username":"u","owner":{}}`:                        false,
		`{"username":"u","owner":{"name":"n","age":151}}`:    false,
		`{"username":"u","people":[{"name":"n","x":1}]}`:     false,
		`{"username":"u","colours":["red",null]}`:            false,
		`{"username":"u","tags":{"a":null}}`:                 false,
		`{"username":"u","tags":{"a":"","b":"","c":""}}`:     false,
		`{"username":"u","colours":["red","red","red","x"]}`: false,
	} {
		if err := schema.Validate(instance(t, params)); (err == nil) != valid {
			t.Errorf("the schema says of %s: %v", params, err)
		}
		if err := shape[every](t).Decode([]byte(params), new(every)); (err == nil) != valid {
			t.Errorf("Decode says of %s: %v", params, err)
		}
	}
}

func TestSchemaIsExact(t *testing.T) {
	const want = `{"type":"object","properties":{` +
		`"name":{"type":"string","description":"A name.","minLength":1,"maxLength":16},` +
		`"age":{"type":["integer","null"],"description":"In years.","minimum":0,"maximum":150}},` +
		`"required":["name"],"additionalProperties":false}`
	if got := string(shape[person](t).Schema()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func shape[T any](tb testing.TB) *wire.Shape {
	tb.Helper()
	s, err := wire.Describe[T]()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func compile(tb testing.TB, s *wire.Shape) *jsonschema.Schema {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(s.Schema()))
	if err != nil {
		tb.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("params.json", doc); err != nil {
		tb.Fatal(err)
	}
	schema, err := c.Compile("params.json")
	if err != nil {
		tb.Fatal(err)
	}
	return schema
}

func instance(tb testing.TB, text string) any {
	tb.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var x any
	if err := d.Decode(&x); err != nil {
		tb.Fatal(err)
	}
	return x
}
