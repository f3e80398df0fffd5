package wire_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// view writes itself.
type view struct{ n int }

func (v view) AppendJSON(dst []byte) []byte {
	return append(wire.AppendString(append(dst, `{"view":`...), strings.Repeat("v", v.n)), '}')
}

func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		value any
		want  string
	}{
		{view{2}, `{"view":"vv"}`},
		{&view{1}, `{"view":"v"}`},
		{[]view{{1}, {2}}, `[{"view":"v"},{"view":"vv"}]`},
		{map[string]any{"b": view{1}, "a": []int(nil)}, `{"a":[],"b":{"view":"v"}}`},
		{struct {
			A wire.Raw `json:"a"`
			B wire.Raw `json:"b"`
			C wire.Raw `json:"c,omitzero"`
		}{A: wire.Raw(`{"x":1.0}`)}, `{"a":{"x":1.0},"b":null}`},
		{api.NewSecret(canary), `"[redacted]"`},
		{api.ID{15: 1}, `"0000000000000000000001"`},
		{time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC), `"2026-03-02T08:15:00Z"`},
		{api.BadParam, `21006`},
		{"<é\u2028\n", `"<é` + "\u2028" + `\n"`},
		{struct{}{}, `{}`},
		{"stored \xff", "\"stored \ufffd\""}, // what is bad in one record must not hide the others
	} {
		got, err := wire.Append([]byte("x"), tt.value)
		if err != nil || string(got) != "x"+tt.want {
			t.Errorf("%#v: %s, %v; want %s", tt.value, got, err, tt.want)
		}
		if !json.Valid(got[1:]) {
			t.Errorf("%s is no JSON", got[1:])
		}
	}
	for _, value := range []any{make(chan int), func() {}} {
		if got, err := wire.Append([]byte("x"), value); err == nil || strings.Contains(err.Error(), canary) || string(got) != "x" {
			t.Errorf("%T: %q, %v", value, got, err)
		}
	}
}

func TestAppendString(t *testing.T) {
	for text, want := range map[string]string{
		"": `""`, "plain": `"plain"`, `q"\`: `"q\"\\"`, "\x00\x1f\n\x7f": `"\u0000\u001f\n` + "\x7f" + `"`, "é😀": `"é😀"`, "a\xffb": "\"a\ufffdb\"",
	} {
		if got := string(wire.AppendString([]byte("x"), text)); got != "x"+want {
			t.Errorf("%q is written %s, want x%s", text, got, want)
		}
	}
}

func TestUnmarshalIsStrict(t *testing.T) {
	type record struct {
		Name string `json:"name"`
	}
	var r record
	if err := wire.Unmarshal([]byte(`{"name":"n"}`), &r); err != nil || r.Name != "n" {
		t.Errorf("%+v, %v", r, err)
	}
	for data, where := range map[string]string{
		`{"name":"n","CANARIES":1}`: "/CANARIES", `{"name":5}`: "/name", `{"name":"CANARY","name":""}`: "/name", `{"name":"CANARY`: "/name",
		`{"name":""} "CANARY"`: "", `{"Name":""}`: "/Name", "{\"name\":\"CANARY\xff\"}": "/name",
	} {
		err := wire.Unmarshal([]byte(data), &record{})
		if err == nil || !strings.Contains(err.Error(), `"`+where+`"`) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v, want it at %q", data, err, where)
		}
	}
}

func TestReshape(t *testing.T) {
	shape, err := wire.Describe[struct {
		Rows []struct {
			A int `json:"a" doc:"A number."`
		} `json:"rows" doc:"Objects."`
	}]()
	if err != nil {
		t.Fatal(err)
	}
	const list = `{"sessions":[{"a":1,"b":"x"},{"b":"y","c":{"d":[{"e":2.50}]}}],"more":true,"n":7,"names":["p"],"none":[]}`
	for _, tt := range []struct {
		name, result, want string
		options            api.ResponseOptions
	}{
		{"nothing asked", list, list, api.ResponseOptions{}},
		{"defaults spelt out", list, list, api.ResponseOptions{NumberFormat: "number", DataFormat: "objects"}},
		{
			"rows", list, `{"sessions":{"fields":["a","b","c"],"rows":[[1,"x",null],[null,"y",{"d":{"fields":["e"],"rows":[[2.50]]}}]]},"more":true,"n":7,"names":["p"],"none":[]}`,
			api.ResponseOptions{DataFormat: "arrays"},
		},
		{
			"quoted numbers", list, `{"sessions":[{"a":"1","b":"x"},{"b":"y","c":{"d":[{"e":"2.50"}]}}],"more":true,"n":"7","names":["p"],"none":[]}`,
			api.ResponseOptions{NumberFormat: "string"},
		},
		{"include, of objects in arrays", list, `{"sessions":[{"a":1},{}],"more":true,"n":7,"names":["p"],"none":[]}`, api.ResponseOptions{IncludeFields: []string{"a", "n"}}},
		{"include, where there are none", `{"a":1,"b":2,"names":["p"],"none":[]}`, `{"a":1}`, api.ResponseOptions{IncludeFields: []string{"a", "n"}}},
		{"include, where there could be some", `{"rows":[],"n":1}`, `{"rows":[],"n":1}`, api.ResponseOptions{IncludeFields: []string{"a"}}},
		{"include by name", `{"a":1,"b":{"a":2,"c":3}}`, `{"b":{"a":2,"c":3}}`, api.ResponseOptions{IncludeFields: []string{"b"}}},
		{"exclude", list, `{"sessions":[{"a":1},{"c":{"d":[{"e":2.50}]}}],"more":true,"names":["p"],"none":[]}`, api.ResponseOptions{ExcludeFields: []string{"b", "n"}}},
		{"exclude a list", list, `{"more":true,"n":7,"names":["p"]}`, api.ResponseOptions{ExcludeFields: []string{"sessions", "none"}}},
		{"omit", list, `{"more":true,"n":7,"none":[]}`, api.ResponseOptions{Omit: []string{"sessions", "names", "a"}}},
		{"mixed elements", `[1,{"a":1}]`, `[1,{"a":1}]`, api.ResponseOptions{DataFormat: "arrays"}},
		{"rows of what is included", list, `{"sessions":{"fields":["b"],"rows":[["x"],["y"]]},"more":true,"n":7,"names":["p"],"none":[]}`, api.ResponseOptions{DataFormat: "arrays", IncludeFields: []string{"b"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := wire.Reshape(nil, []byte(tt.result), tt.options, shape)
			if err != nil || string(got) != tt.want {
				t.Errorf("got  %s, %v\nwant %s", got, err, tt.want)
			}
		})
	}
	for _, result := range []string{``, `{`, `{"a":1,"a":2}`} {
		if got, err := wire.Reshape([]byte("x"), []byte(result), api.ResponseOptions{}, nil); err == nil || string(got) != "x" {
			t.Errorf("%s: %s, %v", result, got, err)
		}
	}
}

func TestRedact(t *testing.T) {
	key := "mycompany_" + token[6:]
	for _, tt := range []struct{ request, want string }{
		{`{"action":"a","authToken":"x","params":{"password":5,"username":"u"}}`, `{"action":"a","authToken":"[redacted]","params":{"password":"[redacted]","username":"u"}}`},
		{
			`{"params":{"authTokens":["x"],"tokenId":"x","tokenIds":["x"],"client-secret":{"a":1},"TICKET":1,"Authorization":"x"}}`,
			`{"params":{"authTokens":"[redacted]","tokenId":"[redacted]","tokenIds":"[redacted]","client-secret":"[redacted]","TICKET":"[redacted]","Authorization":"[redacted]"}}`,
		},
		{`{"api_key":1,"newPassword":"","paſſword":1,"toKen":1}`, `{"api_key":"[redacted]","newPassword":"[redacted]","paſſword":"[redacted]","toKen":"[redacted]"}`},
		{`["` + token + `","Bearer ` + token + `","` + key + `","` + token[:63] + `"]`, `["[redacted]","[redacted]","[redacted]","` + token[:63] + `"]`},
		{`{"` + token + `":1}`, `{"[redacted]":1}`},
		{`{"a":"\u0073` + token[1:] + `"}`, `{"a":"[redacted]"}`},
		{`{"sessionHandle":"sh_7n42DGM5Tflk9n8mt7Fhc7"}`, `{"sessionHandle":"sh_7n42DGM5Tflk9n8mt7Fhc7"}`},
		{`{"password":"x"`, `null`},
		{`{"password":"x","password":"y"}`, `{"password":"[redacted]","password":"[redacted]"}`},
		{``, `null`},
	} {
		if got := string(wire.Redact(nil, []byte(tt.request))); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestIndent(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":[1,{}],"b":"\u0061"}`: "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": \"\\u0061\"\n}",
		`{"a":1,"a":2}`:             "{\n  \"a\": 1,\n  \"a\": 2\n}",
		`{"a":`:                     `{"a":`,
	} {
		if got := string(wire.Indent([]byte("x"), []byte(text))); got != "x"+want {
			t.Errorf("%s becomes %s", text, got)
		}
	}
}

func TestParseTree(t *testing.T) {
	text := []byte("{\n  \"a\": [1, \"é\", true],\n  \"é\": 2, \"a\": {\"b\": 1, \"b\": 2}\n}")
	root, faults := wire.ParseTree(text)
	type found struct {
		pointer      string
		line, column int
		code         api.Code
	}
	places := func(faults []wire.Fault) (list []found) {
		for _, f := range faults {
			line, column := wire.Line(text, f.Offset)
			list = append(list, found{f.Pointer, line, column, f.Code})
		}
		return list
	}
	if diff := cmp.Diff([]found{{"/a", 3, 11, api.DuplicateMember}, {"/a/b", 3, 25, api.DuplicateMember}}, places(faults), cmp.AllowUnexported(found{})); diff != "" {
		t.Error(diff)
	}
	if n := len(root.Members); n != 3 || root.Members[1].Name != "é" {
		t.Fatalf("%d members, %+v", n, root.Members)
	}
	items := root.Member("a").Items
	i, okInt := items[0].Int64()
	s, okString := items[1].String()
	b, okBool := items[2].Bool()
	if i != 1 || !okInt || s != "é" || !okString || !b || !okBool {
		t.Errorf("%v %v, %v %v, %v %v", i, okInt, s, okString, b, okBool)
	}
	if _, ok := items[0].String(); ok {
		t.Error("a number has a text")
	}
	if _, ok := items[1].Int64(); ok {
		t.Error("a string is an integer")
	}
	if root.Member("x") != nil {
		t.Error("there is an x")
	}
	text = []byte("{\n  \"a\": tru\n}")
	root, faults = wire.ParseTree(text)
	if root != nil || len(faults) != 1 || faults[0].Pointer != "/a" {
		t.Fatalf("%v, %+v", root, faults)
	}
	if line, _ := wire.Line(text, faults[0].Offset); line != 2 {
		t.Errorf("the fault is on line %d: %+v", line, faults[0])
	}
}
