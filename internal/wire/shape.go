package wire

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"sessiond/internal/api"
)

// Shape is what a params or result struct looks like on the wire. It is made once,
// at registration, and then safe for concurrent use.
//
// A struct's exported fields are its members, by these tags:
//
//	json:"name,omitzero"  its name; omitzero, or a pointer, makes it optional
//	doc:"…"               what it means; no field goes without
//	enum:"a,b"            the values that a string may have
//	null:"no"             null is refused, where it would change what is meant
//	min:"1" max:"64"      bounds of a number, of a string's bytes, of an array's or map's length
//
// An enum on an array of strings is about its elements. Embedded structs without
// a name are flattened. Types: string, bool, integers, api.Secret, time.Time (RFC
// 3339), whatever reads and writes itself as text, Raw and any (any JSON value),
// structs, slices and maps by string of these, pointers to these. A struct may
// have a method Validate() error, which is called once its members are set.
type Shape struct {
	object *object
	schema []byte
}

// Field is one member, as the reference shows it.
type Field struct {
	Name     string
	Type     string // string, boolean, integer, timestamp, object, any; "array of …", "map of …"
	Doc      string
	Required bool
	Secret   bool // never shown
	Enum     []string
	Min, Max *int64  // of the value, the bytes or the elements; nil: none
	Fields   []Field // of an object, or of the objects in an array or map

	index  []int
	value  *value
	noNull bool // null is not the same as absent
}

type kind uint8

const (
	boolKind kind = iota
	intKind
	uintKind
	stringKind
	secretKind
	textKind
	timeKind
	rawKind
	anyKind
	objectKind
	arrayKind
	mapKind
	pointerKind
)

// value is how one value is read.
type value struct {
	kind     kind
	typ      reflect.Type
	bits     int    // of an integer
	min, max *int64 // as in Field
	enum     []string
	elem     *value // of an array, a map or a pointer
	object   *object
}

// object is how a struct is read.
type object struct {
	typ       reflect.Type
	fields    []Field
	byName    map[string]int
	required  uint64 // a bit for each field
	validates bool

	forResults bool // it cannot be read
}

// maxFields is how many members an object may have: as many as the bits that
// remember which have been seen.
const maxFields = 64

type validator interface{ Validate() error }

var (
	rawType         = reflect.TypeFor[Raw]()
	secretType      = reflect.TypeFor[api.Secret]()
	timeType        = reflect.TypeFor[time.Time]()
	validatorType   = reflect.TypeFor[validator]()
	marshalerType   = reflect.TypeFor[encoding.TextMarshaler]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// Describe returns the shape of the struct T. The error names the field that has
// no doc, or cannot be described, as Type.field.
func Describe[T any]() (*Shape, error) { return DescribeType(reflect.TypeFor[T]()) }

// DescribeType is Describe for a type that is known at run time only.
func DescribeType(t reflect.Type) (*Shape, error) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("wire: %v is no struct", t)
	}
	o, err := describeObject(t, nil)
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	return &Shape{object: o, schema: o.appendSchema(nil, "")}, nil
}

// Fields returns the members, in the order in which they are declared. Callers do
// not change them.
func (s *Shape) Fields() []Field { return s.object.fields }

// Schema returns the JSON Schema (2020-12) of the object. It allows whatever
// Decode takes; what it cannot say (bytes where it counts characters, Validate)
// Decode still refuses. Callers do not change it.
func (s *Shape) Schema() []byte { return s.schema }

func describeObject(t reflect.Type, within []reflect.Type) (*object, error) {
	if slices.Contains(within, t) {
		return nil, fmt.Errorf("%v contains itself", t)
	}
	o := &object{typ: t, byName: map[string]int{}, validates: reflect.PointerTo(t).Implements(validatorType)}
	if err := o.flatten(t, nil, append(within, t)); err != nil {
		return nil, err
	}
	if len(o.fields) > maxFields {
		return nil, fmt.Errorf("%v has more than %d members", t, maxFields)
	}
	for i, f := range o.fields {
		if f.Required {
			o.required |= 1 << i
		}
		o.byName[f.Name] = i
	}
	return o, nil
}

// flatten adds the fields of t, which is o's type or embedded in it at index. By an
// embedded pointer a result has fields that stand there together or not at all;
// Decode, which has none to fill, takes no such type.
func (o *object) flatten(t reflect.Type, index []int, within []reflect.Type) error {
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, tagged := sf.Tag.Lookup("json")
		at := append(slices.Clone(index), i)
		switch {
		case tag == "-":
			continue
		case sf.Anonymous && !tagged && sf.Type.Kind() == reflect.Pointer:
			o.forResults = true
			if err := o.flatten(sf.Type.Elem(), at, within); err != nil {
				return err
			}
			continue
		case sf.Anonymous && !tagged && sf.Type.Kind() == reflect.Struct:
			if err := o.flatten(sf.Type, at, within); err != nil {
				return err
			}
			continue
		case !sf.IsExported():
			continue
		}
		f, err := describeField(sf, tag, within)
		if err != nil {
			return fmt.Errorf("%v.%s %w", t, sf.Name, err)
		}
		if slices.ContainsFunc(o.fields, func(other Field) bool { return other.Name == f.Name }) {
			return fmt.Errorf("%v.%s has the name of another field", t, sf.Name)
		}
		f.index = at
		o.fields = append(o.fields, f)
	}
	return nil
}

func describeField(sf reflect.StructField, tag string, within []reflect.Type) (Field, error) {
	name, option, _ := strings.Cut(tag, ",")
	f := Field{Name: name, noNull: sf.Tag.Get("null") == "no", Doc: sf.Tag.Get("doc")}
	switch {
	case name == "":
		return f, fmt.Errorf("has no json name")
	case option != "" && option != "omitzero":
		return f, fmt.Errorf("has a json option other than omitzero")
	case f.Doc == "":
		return f, fmt.Errorf("has no doc tag")
	}
	v, err := describeValue(sf.Type, within)
	if err != nil {
		return f, err
	}
	inner := v.deref()
	if err := inner.bound(sf.Tag); err != nil {
		return f, err
	}
	f.value = v
	f.Required = option == "" && v.kind != pointerKind
	f.Type, f.Secret = inner.typeText(), inner.holdsSecret()
	f.Enum, f.Min, f.Max = inner.enum, inner.min, inner.max
	if inner.kind == arrayKind {
		f.Enum = inner.elem.enum
	}
	if o := inner.innermost().object; o != nil {
		f.Fields = o.fields
	}
	return f, nil
}

// bound takes the enum, min and max of a field's tag.
func (v *value) bound(tag reflect.StructTag) error {
	if text, ok := tag.Lookup("enum"); ok {
		holder := v
		if v.kind == arrayKind {
			holder = v.elem
		}
		if holder.kind != stringKind {
			return fmt.Errorf("has an enum, but is no string")
		}
		holder.enum = strings.Split(text, ",")
	}
	for _, b := range []struct {
		name string
		to   **int64
	}{{"min", &v.min}, {"max", &v.max}} {
		text, ok := tag.Lookup(b.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("has a %s that is no integer", b.name)
		}
		switch v.kind {
		case intKind, uintKind, stringKind, secretKind, textKind, arrayKind, mapKind:
			*b.to = &n
		default:
			return fmt.Errorf("has a %s, but is neither number nor string, array or map", b.name)
		}
	}
	return nil
}

func describeValue(t reflect.Type, within []reflect.Type) (*value, error) {
	v := &value{typ: t}
	var err error
	switch {
	case t == rawType:
		v.kind = rawKind
	case t == secretType:
		v.kind = secretKind
	case t == timeType:
		v.kind = timeKind
	case t.Kind() == reflect.Pointer && t.Elem().Kind() != reflect.Pointer:
		v.kind = pointerKind
		v.elem, err = describeValue(t.Elem(), within)
	case t.Implements(marshalerType) || reflect.PointerTo(t).Implements(unmarshalerType):
		v.kind = textKind
	case t.Kind() == reflect.Interface && t.NumMethod() == 0:
		v.kind = anyKind
	case t.Kind() == reflect.Bool:
		v.kind = boolKind
	case t.Kind() == reflect.String:
		v.kind = stringKind
	case reflect.Int <= t.Kind() && t.Kind() <= reflect.Int64:
		v.kind, v.bits = intKind, t.Bits()
	case reflect.Uint <= t.Kind() && t.Kind() <= reflect.Uint64:
		v.kind, v.bits = uintKind, t.Bits()
	case t.Kind() == reflect.Struct:
		v.kind = objectKind
		v.object, err = describeObject(t, within)
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		v.kind = arrayKind
		v.elem, err = describeValue(t.Elem(), within)
	case t.Kind() == reflect.Map && t.Key() == reflect.TypeFor[string]():
		v.kind = mapKind
		v.elem, err = describeValue(t.Elem(), within)
	default:
		return nil, fmt.Errorf("has a type that the wire does not know, %v", t)
	}
	return v, err
}

// deref returns what a pointer points to, others themselves.
func (v *value) deref() *value {
	if v.kind == pointerKind {
		return v.elem
	}
	return v
}

// innermost returns what arrays, maps and pointers are of in the end.
func (v *value) innermost() *value {
	for v.elem != nil {
		v = v.elem
	}
	return v
}

func (v *value) holdsSecret() bool { return v.innermost().kind == secretKind }

func (v *value) typeText() string {
	switch v.kind {
	case boolKind:
		return "boolean"
	case intKind, uintKind:
		return "integer"
	case stringKind, secretKind, textKind:
		return "string"
	case timeKind:
		return "timestamp"
	case rawKind, anyKind:
		return "any"
	case objectKind:
		return "object"
	case arrayKind:
		return "array of " + v.elem.typeText()
	case mapKind:
		return "map of " + v.elem.typeText()
	case pointerKind:
		return v.elem.typeText()
	}
	return ""
}

// limits returns the bounds of an integer: those of its tag within those of its
// type.
func (v *value) limits() (low, high int64) {
	low, high = math.MinInt64, math.MaxInt64
	if v.bits < 64 {
		low, high = -1<<(v.bits-1), 1<<(v.bits-1)-1
	}
	if v.kind == uintKind {
		low = 0
		if v.bits < 64 {
			high = 1<<v.bits - 1
		}
	}
	if v.min != nil {
		low = max(low, *v.min)
	}
	if v.max != nil {
		high = min(high, *v.max)
	}
	return low, high
}

// expected says what a value must be.
func (v *value) expected() string {
	switch v.kind {
	case boolKind:
		return "true or false"
	case intKind, uintKind:
		low, high := v.limits()
		return "an integer" + between(ifOther(low, math.MinInt64), ifOther(high, math.MaxInt64), "")
	case stringKind:
		if v.enum != nil {
			return "one of " + strings.Join(v.enum, ", ")
		}
		return "a string" + between(v.min, v.max, " bytes")
	case secretKind, textKind:
		return "a string" + between(v.min, v.max, " bytes")
	case timeKind:
		return "an RFC 3339 time such as 2026-03-02T08:15:00Z"
	case objectKind:
		return "an object"
	case arrayKind:
		return "an array" + between(v.min, v.max, " elements")
	case mapKind:
		return "an object" + between(v.min, v.max, " members")
	case pointerKind:
		return v.elem.expected()
	case rawKind, anyKind:
	}
	return "a JSON value other than null"
}

func ifOther(n, than int64) *int64 {
	if n == than {
		return nil
	}
	return &n
}

func between(low, high *int64, unit string) string {
	of := " of "
	switch {
	case low != nil && high != nil && unit == "":
		return fmt.Sprintf(" between %d and %d", *low, *high)
	case low != nil && high != nil:
		return fmt.Sprintf("%s%d to %d%s", of, *low, *high, unit)
	case low != nil:
		return fmt.Sprintf("%sat least %d%s", of, *low, unit)
	case high != nil:
		return fmt.Sprintf("%sat most %d%s", of, *high, unit)
	}
	return ""
}
