package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// What we accept, encoding/json accepts with the same meaning; what we refuse has
// a code of ours, a bounded pointer, and nothing of the input's values.
func FuzzEnvelope(f *testing.F) {
	for _, body := range []string{
		`{"api":"session","action":"validate","authToken":"CANARY"}`,
		`{"action":"a","params":{"x":[1,{"y":null}]},"requestId":{"a":-1.5e3},"debug":"max","apiVersion":"1.0"}`,
		`[{"action":"a"},{"action":"\u0061\n","x":"CANARY"},5]`,
		`[{"x":1},{"y":`, `{"\`, `{"action":"é\ud83d\ude00","responseOptions":{"numberFormat":"string","omit":["CANARY"]}}`,
		`{"params":{"username":"CANARY","username":"CANARY"}}`, `{"action":"a","x":01}`, "{\"action\":\"CANARY\xff\"}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		items, batch, err := wire.Split(nil, body, wire.Limits{})
		if err != nil {
			wellFormed(t, body, err)
			return
		}
		if !batch && (len(items) != 1 || !bytes.Equal(items[0], body)) {
			t.Fatalf("a single object is split into %q", items)
		}
		if batch {
			var oracle []json.RawMessage
			if err := json.Unmarshal(body, &oracle); err != nil || len(oracle) != len(items) {
				t.Fatalf("%d items, encoding/json has %d, %v", len(items), len(oracle), err)
			}
		}
		var e wire.Envelope
		for _, item := range items {
			if err := e.Decode(item); err != nil {
				wellFormed(t, body, err)
				continue
			}
			sameEnvelope(t, item, &e)
		}
	})
}

func wellFormed(t *testing.T, body []byte, err error) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Message == "" || len(e.Data.Pointer) > api.MaxPointer || !utf8.ValidString(e.Data.Pointer) || e.Unwrap() != nil {
		t.Fatalf("the error is %#v", err)
	}
	switch e.Code {
	case api.BadEnvelope, api.UnknownParam, api.MissingParam, api.BadParam, api.DuplicateMember, api.TooLarge:
	default:
		t.Fatalf("the error is %v", err)
	}
	if strings.Contains(e.Message, canary) {
		t.Fatalf("the message quotes a value: %s", e.Message)
	}
	if strings.Contains(e.Data.Pointer, canary) && !isName(body) {
		t.Fatalf("the pointer quotes a value: %s", e.Data.Pointer)
	}
}

// isName reports whether the canary stands in a member's name, as it may in a
// pointer. Of a malformed text nobody can tell.
func isName(body []byte) bool {
	root, _ := wire.ParseTree(body)
	return root == nil || inName(root)
}

func inName(n *wire.Node) bool {
	return slices.ContainsFunc(n.Members, func(m wire.Member) bool { return strings.Contains(m.Name, canary) || inName(m.Value) }) ||
		slices.ContainsFunc(n.Items, inName)
}

func sameEnvelope(t *testing.T, item []byte, e *wire.Envelope) {
	t.Helper()
	var oracle map[string]json.RawMessage
	if err := json.Unmarshal(item, &oracle); err != nil {
		t.Fatalf("encoding/json refuses %q: %v", item, err)
	}
	for name, got := range map[string]string{
		"api": e.API, "action": e.Action, "apiVersion": e.APIVersion, "debug": e.Debug, "authToken": e.AuthToken.Reveal(),
	} {
		var want string
		if raw, ok := oracle[name]; ok {
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Fatalf("%s is no string: %s", name, raw)
			}
		}
		if got != want {
			t.Fatalf("%s is %q, encoding/json says %q", name, got, want)
		}
	}
	for name, got := range map[string][]byte{"params": e.Params, "requestId": e.RequestID} {
		want := oracle[name]
		if string(want) == "null" {
			want = nil
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%s is %q, encoding/json says %q", name, got, want)
		}
	}
	var options *api.ResponseOptions
	if raw, ok := oracle["responseOptions"]; ok {
		if err := json.Unmarshal(raw, &options); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(options, e.ResponseOptions); diff != "" {
		t.Fatal(diff)
	}
}

// What Decode takes, encoding/json takes with the same meaning, the schema takes,
// and comes back from what Append writes of it.
func FuzzParams(f *testing.F) {
	for _, params := range []string{
		`{"username":"u","limit":5,"cursor":"x","password":"CANARY","mode":"fast","colours":["red","blue"],"modes":["slow"]}`,
		`{"username":"\u00e9\ud83d\ude00","rememberMe":true,"refresh":false,"small":-1,"big":9223372036854775807,"count":18446744073709551615,"code":21001}`,
		`{"username":"u","since":"2026-03-02T08:15:00.25+01:00","owner":{"name":"n","age":7},"people":[{"name":"CANARY"},{"name":"n","age":null}]}`,
		`{"username":"u","tags":{"a":"CANARY"},"changes":{"a":null,"b":""},"filter":[1.5e3,{"a":null}],"free":{"a":[true,null,"x",-0.5]}}`,
		`{"username":null}`, `{}`, `{"username":"u","username":"CANARY"}`,
	} {
		f.Add([]byte(params))
	}
	s := shape[every](f)
	schema := compile(f, s)
	f.Fuzz(func(t *testing.T, params []byte) {
		var got, want every
		if err := s.Decode(params, &got); err != nil {
			wellFormed(t, params, err)
			if e := api.FromError(err); !strings.HasPrefix(e.Data.Pointer, "/params") {
				t.Fatalf("the pointer is %q", e.Data.Pointer)
			}
			return
		}
		if err := json.Unmarshal(params, &want); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", params, err)
		}
		want.Since = want.Since.UTC()
		if string(want.Filter) == "null" {
			want.Filter = nil
		}
		if diff := cmp.Diff(want, got, compareAll...); diff != "" {
			t.Fatal(diff)
		}
		if err := schema.Validate(instance(t, string(params))); err != nil {
			t.Fatalf("the schema refuses %q: %v", params, err)
		}
		comesBack(t, s, got)
	})
}

func comesBack(t *testing.T, s *wire.Shape, p every) {
	t.Helper()
	p.Password = api.Secret{}
	written, err := wire.Append(nil, &p)
	if err != nil {
		t.Fatal(err)
	}
	var back every
	if err := s.Decode(written, &back); err != nil {
		t.Fatalf("%s does not come back: %v", written, err)
	}
	if diff := cmp.Diff(p, back, append(compareAll, cmp.Comparer(sameJSON))...); diff != "" {
		t.Fatal(diff)
	}
}

func sameJSON(a, b wire.Raw) bool {
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		return len(a) == 0 && len(b) == 0
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}

// Our reading of JSON is encoding/json's, narrowed by what strictness adds; and
// the plain scanner accepts nothing that the library refuses.
func FuzzDifferential(f *testing.F) {
	for _, text := range []string{
		`{"a":[1,-0,0.5,1e5,"x",true,false,null,{}],"b":{"a":{"a":[]}}}`, `{"a":1,"\u0061":2}`, `"\ud800"`, `01`, `-`, `1.`, `[1,]`, `{"a":1,}`, `nul`,
		" [ \"12345678\\\"\" , \"1234567é\" ] ", `"1234567` + "\x1f" + `"`, `"\"\\\/\b\f\n\r\t\u00e9"`, `{"aaaaaaaa":1,"aaaaaaab":2}`, strings.Repeat("[", 12) + strings.Repeat("]", 12),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, stdlib := wire.Check(text), json.Valid(text)
		if ours == 0 && (!stdlib || !utf8.Valid(text) || repeats(t, text)) {
			t.Fatalf("%q is accepted; encoding/json says %v", text, stdlib)
		}
		if ours != 0 && wire.Plain(text) {
			t.Fatalf("%q is accepted as plain", text)
		}
		surrogate := bytes.Contains(bytes.ToLower(text), []byte(`\ud`))
		if ours != 0 && stdlib && utf8.Valid(text) && !surrogate && !repeats(t, text) {
			t.Fatalf("%q is refused with %d", text, ours)
		}
		root, faults := wire.ParseTree(text)
		if (ours == 0) != (root != nil && len(faults) == 0) {
			t.Fatalf("check says %d, the tree's faults are %v", ours, faults)
		}
		if root == nil {
			return
		}
		if !places(text, root) {
			t.Fatalf("an offset is wrong in the tree of %q", text)
		}
		if ours == 0 {
			if diff := cmp.Diff(instance(t, string(text)), plainValue(root)); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// repeats reports whether an object in a valid text names a member twice.
func repeats(t *testing.T, text []byte) bool {
	t.Helper()
	type level struct {
		names map[string]bool
		name  bool // a name comes next
	}
	var stack []*level
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		var top *level
		if len(stack) > 0 {
			top = stack[len(stack)-1]
		}
		if name, ok := token.(string); ok && top != nil && top.name {
			if top.names[name] {
				return true
			}
			top.names[name], top.name = true, false
			continue
		}
		switch token {
		case json.Delim('{'):
			stack = append(stack, &level{map[string]bool{}, true})
			continue
		case json.Delim('['):
			stack = append(stack, &level{})
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		if len(stack) > 0 {
			top = stack[len(stack)-1]
			top.name = top.names != nil
		}
	}
}

// places reports whether each node's text stands at its offset.
func places(text []byte, n *wire.Node) bool {
	if !bytes.HasPrefix(text[n.Offset:], n.Raw) || len(n.Raw) == 0 {
		return false
	}
	for _, m := range n.Members {
		if text[m.Offset] != '"' || !places(text, m.Value) {
			return false
		}
	}
	return !slices.ContainsFunc(n.Items, func(item *wire.Node) bool { return !places(text, item) })
}

// plainValue is what encoding/json would make of the tree.
func plainValue(n *wire.Node) any {
	switch n.Kind {
	case wire.Null:
		return nil
	case wire.Bool:
		b, _ := n.Bool()
		return b
	case wire.Number:
		return json.Number(n.Raw)
	case wire.String:
		s, _ := n.String()
		return s
	case wire.Array:
		items := []any{}
		for _, item := range n.Items {
			items = append(items, plainValue(item))
		}
		return items
	case wire.Object:
	}
	object := map[string]any{}
	for _, m := range n.Members {
		object[m.Name] = plainValue(m.Value)
	}
	return object
}

// A reshaped result is valid JSON, and without filters each value is still there.
func FuzzReshape(f *testing.F) {
	f.Add([]byte(`{"sessions":[{"a":1,"b":"x"},{"b":[{"c":2}],"d":null}],"roles":["r"],"n":-1.5e3}`), true, true, "b")
	f.Add([]byte(`[[{"a":1}],[],{}]`), false, true, "")
	f.Add([]byte(`5`), true, false, "a")
	f.Fuzz(func(t *testing.T, result []byte, quoted, rows bool, name string) {
		var o api.ResponseOptions
		if quoted {
			o.NumberFormat = "string"
		}
		if rows {
			o.DataFormat = "arrays"
		}
		out, err := wire.Reshape([]byte("before"), result, o, nil)
		if !bytes.HasPrefix(out, []byte("before")) {
			t.Fatalf("what stood before is gone: %q", out)
		}
		if out = out[len("before"):]; err != nil {
			if wire.Check(result) == 0 || len(out) > 0 {
				t.Fatalf("%q: %v", result, err)
			}
			return
		}
		root, faults := wire.ParseTree(out)
		if len(faults) > 0 {
			t.Fatalf("%q becomes %q: %v", result, out, faults)
		}
		before, _ := wire.ParseTree(result)
		left := leaves(root, nil)
		for text, n := range leaves(before, nil) {
			if left[text] < n {
				t.Fatalf("%q loses %s: %q", result, text, out)
			}
		}
		for _, o := range []api.ResponseOptions{
			{Omit: []string{name}, DataFormat: o.DataFormat},
			{ExcludeFields: []string{name}, NumberFormat: o.NumberFormat},
			{IncludeFields: []string{name}, ExcludeFields: []string{"b"}},
		} {
			if out, err := wire.Reshape(nil, result, o, nil); err != nil || wire.Check(out) != 0 {
				t.Fatalf("%q becomes %q with %+v: %v", result, out, o, err)
			}
		}
	})
}

// leaves counts the scalars other than null; a number and its quoted form are one.
func leaves(n *wire.Node, into map[string]int) map[string]int {
	if into == nil {
		into = map[string]int{}
	}
	switch text, isString := n.String(); {
	case isString:
		into[text]++
	case n.Kind == wire.Number || n.Kind == wire.Bool:
		into[string(n.Raw)]++
	}
	for _, item := range n.Items {
		leaves(item, into)
	}
	for _, m := range n.Members {
		leaves(m.Value, into)
	}
	return into
}

// No secret survives in what debugInfo shows, and what it shows is JSON.
func FuzzRedact(f *testing.F) {
	f.Add([]byte(`{"a":[{"Authorization":"CANARY"}]}`), "new", "x")
	f.Add([]byte(`["`+token+`"]`), "", "\n\"")
	f.Add([]byte(`{"`+token+`":"x `+token+`y"}`), "é", "{}")
	f.Fuzz(func(t *testing.T, request []byte, word, value string) {
		checkRedacted(t, request, token)
		inner := request
		if root, _ := wire.ParseTree(request); root == nil || bytes.Contains(request, []byte(canary)) || bytes.ContainsRune(request, '\\') {
			inner = []byte("null")
		}
		for _, name := range []string{"Password", "authToken", "tokenIds", "client_SECRET", "toKens", "ticket", "paſſword"} {
			var nested []byte
			nested = append(nested, `{"params":[{"x":`...)
			nested = append(nested, inner...)
			nested = append(nested, `,`...)
			nested = wire.AppendString(nested, word+name+word)
			nested = append(nested, `:[{"a":`...)
			nested = wire.AppendString(nested, value+canary)
			nested = append(nested, `}]}]}`...)
			checkRedacted(t, nested, canary)
		}
	})
}

func checkRedacted(t *testing.T, request []byte, secret string) {
	t.Helper()
	out := wire.Redact([]byte("x"), request)[1:]
	root, _ := wire.ParseTree(out)
	if root == nil {
		t.Fatalf("%q becomes %q, which is no JSON", request, out)
	}
	before, _ := wire.ParseTree(request)
	if before == nil && string(out) != "null" {
		t.Fatalf("%q, which is no JSON, becomes %q", request, out)
	}
	if strings.Contains(string(out), secret) {
		t.Fatalf("%q keeps its secret: %q", request, out)
	}
	for text := range leaves(root, nil) {
		if strings.Contains(text, secret) {
			t.Fatalf("%q keeps its secret: %q", request, out)
		}
	}
}
