package wire

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	json "github.com/goccy/go-json/v2"

	"sessiond/internal/api"
)

// Decode reads params into a *T, whose shape s is; nil stands for {}. Members that
// are absent, or null and optional, leave their field as it is; strings are copies.
// On an error, whose pointer begins with /params, the struct may be partly filled:
// 21004 for a member that T does not have, 21005 for a required one that is
// missing, 21006 for a wrong type, range or value, 21007 for a member that stands
// twice, 21001 for what is no JSON, and whatever T's Validate returns.
func (s *Shape) Decode(raw []byte, into any) error {
	if raw == nil {
		if s.object.required == 0 && !s.object.validates {
			return nil
		}
		raw = []byte("{}")
	}
	if f := check(raw); f != nil {
		return f.in("params").refusal()
	}
	if f := s.decode(raw, into); f != nil {
		return f.in("params").refusal()
	}
	return nil
}

// decode reads valid JSON.
func (s *Shape) decode(raw []byte, into any) *fault {
	dst := reflect.ValueOf(into)
	if dst.Kind() != reflect.Pointer || dst.IsNil() || dst.Type().Elem() != s.object.typ || s.object.forResults {
		return &fault{code: api.Internal, message: "the server failed; its log says why", own: fmt.Errorf("wire: %T is no *%v", into, s.object.typ)}
	}
	return s.object.decode(raw, dst.Elem())
}

func (o *object) decode(raw []byte, dst reflect.Value) *fault {
	c := cursor{data: raw}
	if c.peek() != '{' {
		return faultf(api.BadParam, "must be an object")
	}
	var seen uint64
	for c.enter(); c.more(); {
		rawName, value := c.member()
		name := unquote(rawName)
		i, ok := o.byName[string(name)]
		if !ok {
			return faultf(api.UnknownParam, "there is no such member here; listActions shows which there are").in(string(name))
		}
		field := &o.fields[i]
		if isNull(value) && !field.Required {
			if field.noNull {
				return faultf(api.BadParam, "must be a %s, or be left out", field.Type).of(field.Name)
			}
			continue
		}
		if f := field.value.decode(value, dst.FieldByIndex(field.index)); f != nil {
			return f.of(field.Name)
		}
		seen |= 1 << i
	}
	if o.required&^seen != 0 {
		return o.missing(seen)
	}
	if o.validates {
		return validate(dst)
	}
	return nil
}

func (o *object) missing(seen uint64) *fault {
	for i, field := range o.fields {
		if field.Required && seen>>i&1 == 0 {
			return faultf(api.MissingParam, "%s is required", field.Name).in(field.Name)
		}
	}
	return nil
}

func validate(dst reflect.Value) *fault {
	v, ok := reflect.TypeAssert[validator](dst.Addr())
	if !ok {
		return nil
	}
	if err := v.Validate(); err != nil {
		return &fault{code: api.BadParam, message: "the members do not go together", own: err}
	}
	return nil
}

// of says whose value is wrong: a message that begins with "must" gets the name of
// the member, or of the one that holds the element.
func (f *fault) of(name string) *fault {
	if len(f.message) > 4 && f.message[:4] == "must" {
		if f.pointer != "" {
			f.message = "an element of " + name + " " + f.message
		} else {
			f.message = name + " " + f.message
		}
	}
	return f.in(name)
}

// refuse says what is expected.
func (v *value) refuse() *fault { return faultf(api.BadParam, "must be %s", v.expected()) }

func (v *value) decode(raw []byte, dst reflect.Value) *fault {
	switch v.kind {
	case pointerKind:
		if isNull(raw) {
			dst.SetZero()
			return nil
		}
		to := reflect.New(v.elem.typ)
		if f := v.elem.decode(raw, to.Elem()); f != nil {
			return f
		}
		dst.Set(to)
	case rawKind:
		dst.SetBytes(append([]byte(nil), raw...))
	case anyKind:
		var x any
		if json.Unmarshal(raw, &x) != nil {
			return v.refuse()
		}
		if x != nil {
			dst.Set(reflect.ValueOf(x))
		}
	case boolKind:
		if raw[0] != 't' && raw[0] != 'f' {
			return v.refuse()
		}
		dst.SetBool(raw[0] == 't')
	case intKind:
		n, err := strconv.ParseInt(alias(raw), 10, v.bits)
		if low, high := v.limits(); err != nil || n < low || n > high {
			return v.refuse()
		}
		dst.SetInt(n)
	case uintKind:
		n, err := strconv.ParseUint(alias(raw), 10, v.bits)
		if err != nil || v.min != nil && *v.min > 0 && n < uint64(*v.min) || v.max != nil && (*v.max < 0 || n > uint64(*v.max)) {
			return v.refuse()
		}
		dst.SetUint(n)
	case stringKind, secretKind, textKind, timeKind:
		return v.decodeString(raw, dst)
	case objectKind:
		return v.object.decode(raw, dst)
	case arrayKind:
		return v.decodeArray(raw, dst)
	case mapKind:
		return v.decodeMap(raw, dst)
	}
	return nil
}

func (v *value) decodeString(raw []byte, dst reflect.Value) *fault {
	if raw[0] != '"' {
		return v.refuse()
	}
	text := unquote(raw)
	if !v.fits(len(text)) {
		return v.refuse()
	}
	switch v.kind {
	case stringKind:
		if v.enum == nil {
			dst.SetString(string(text))
			return nil
		}
		for _, allowed := range v.enum {
			if allowed == string(text) {
				dst.SetString(allowed)
				return nil
			}
		}
		return v.refuse()
	default:
		reader, ok := reflect.TypeAssert[encoding.TextUnmarshaler](dst.Addr())
		if !ok {
			return &fault{code: api.Internal, message: "the server failed; its log says why", own: fmt.Errorf("wire: %v cannot be read", v.typ)}
		}
		if err := reader.UnmarshalText(text); err != nil {
			return v.refuseText(err)
		}
		if t, ok := reader.(*time.Time); ok {
			*t = t.UTC()
		}
	}
	return nil
}

// refuseText passes on what a type says of its own text if it says it to the
// client, as an *api.Error; other errors quote.
func (v *value) refuseText(err error) *fault {
	f := v.refuse()
	if e, ok := errors.AsType[*api.Error](err); ok {
		f.own = e
	} else if v.kind == textKind {
		f.message = "must be a string of the form that the reference shows"
	}
	return f
}

// fits reports whether n bytes, elements or members are within the bounds.
func (v *value) fits(n int) bool {
	return (v.min == nil || int64(n) >= *v.min) && (v.max == nil || int64(n) <= *v.max)
}

func (v *value) decodeArray(raw []byte, dst reflect.Value) *fault {
	if raw[0] != '[' {
		return v.refuse()
	}
	n := 0
	c := cursor{data: raw}
	for c.enter(); c.more(); n++ {
		c.value()
	}
	if !v.fits(n) {
		return v.refuse()
	}
	dst.Set(reflect.MakeSlice(v.typ, n, n))
	c = cursor{data: raw}
	c.enter()
	for i := 0; c.more(); i++ {
		if f := v.elem.decode(c.value(), dst.Index(i)); f != nil {
			return f.inItem(i)
		}
	}
	return nil
}

func (v *value) decodeMap(raw []byte, dst reflect.Value) *fault {
	if raw[0] != '{' {
		return v.refuse()
	}
	m := reflect.MakeMap(v.typ)
	c := cursor{data: raw}
	for c.enter(); c.more(); {
		rawName, value := c.member()
		name := string(unquote(rawName))
		elem := reflect.New(v.elem.typ).Elem()
		if f := v.elem.decode(value, elem); f != nil {
			return f.in(name)
		}
		m.SetMapIndex(reflect.ValueOf(name).Convert(v.typ.Key()), elem)
	}
	if !v.fits(m.Len()) {
		return v.refuse()
	}
	dst.Set(m)
	return nil
}
