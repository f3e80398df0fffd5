package wire

import (
	"math"
	"strconv"
)

// appendSchema appends the JSON Schema of an object.
func (o *object) appendSchema(dst []byte, doc string) []byte {
	dst = append(dst, `{"type":"object"`...)
	return append(o.appendBody(dst, doc), '}')
}

// appendBody appends what follows an object's type.
func (o *object) appendBody(dst []byte, doc string) []byte {
	dst = appendDoc(dst, doc)
	dst = append(dst, `,"properties":{`...)
	for i, f := range o.fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, f.Name), ':')
		dst = f.value.appendSchema(dst, f.Doc, !f.Required)
	}
	dst = append(dst, `},"required":[`...)
	first := true
	for _, f := range o.fields {
		if !f.Required {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = AppendString(dst, f.Name)
	}
	return append(dst, `],"additionalProperties":false`...)
}

func appendDoc(dst []byte, doc string) []byte {
	if doc == "" {
		return dst
	}
	return AppendString(append(dst, `,"description":`...), doc)
}

// appendSchema appends the JSON Schema of a value. null stands for an optional
// member that is absent.
func (v *value) appendSchema(dst []byte, doc string, null bool) []byte {
	if v.kind == pointerKind {
		return v.elem.appendSchema(dst, doc, true)
	}
	types := map[kind]string{
		boolKind: "boolean", intKind: "integer", uintKind: "integer", stringKind: "string", secretKind: "string",
		textKind: "string", timeKind: "string", objectKind: "object", arrayKind: "array", mapKind: "object",
	}
	dst = append(dst, `{"type":`...)
	switch name, ok := types[v.kind]; {
	case !ok && null:
		dst = append(dst, `["null","boolean","number","string","array","object"]`...)
	case !ok:
		dst = append(dst, `["boolean","number","string","array","object"]`...)
	case null:
		dst = append(AppendString(append(dst, '['), name), `,"null"]`...)
	default:
		dst = AppendString(dst, name)
	}
	if v.kind == objectKind {
		return append(v.object.appendBody(dst, doc), '}')
	}
	return append(v.appendLimits(appendDoc(dst, doc), null), '}')
}

// appendLimits appends what a value is beyond its type. A length in bytes allows
// at most as many characters, and at least a quarter of them.
func (v *value) appendLimits(dst []byte, null bool) []byte {
	switch v.kind {
	case intKind, uintKind:
		low, high := v.limits()
		dst = appendLimit(dst, "minimum", ifOther(low, math.MinInt64))
		dst = appendLimit(dst, "maximum", ifOther(high, math.MaxInt64))
	case stringKind, secretKind, textKind:
		if v.min != nil {
			least := (*v.min + 3) / 4
			dst = appendLimit(dst, "minLength", &least)
		}
		dst = appendLimit(dst, "maxLength", v.max)
		dst = v.appendEnum(dst, null)
		if v.kind == secretKind {
			dst = append(dst, `,"writeOnly":true`...)
		}
	case timeKind:
		dst = append(dst, `,"format":"date-time"`...)
	case arrayKind:
		dst = appendLimit(appendLimit(dst, "minItems", v.min), "maxItems", v.max)
		dst = v.elem.appendSchema(append(dst, `,"items":`...), "", v.elem.kind == rawKind || v.elem.kind == anyKind)
	case mapKind:
		dst = appendLimit(appendLimit(dst, "minProperties", v.min), "maxProperties", v.max)
		dst = v.elem.appendSchema(append(dst, `,"additionalProperties":`...), "", v.elem.kind == rawKind || v.elem.kind == anyKind)
	case boolKind, rawKind, anyKind, objectKind, pointerKind:
	}
	return dst
}

func appendLimit(dst []byte, name string, n *int64) []byte {
	if n == nil {
		return dst
	}
	dst = append(AppendString(append(dst, ','), name), ':')
	return strconv.AppendInt(dst, *n, 10)
}

func (v *value) appendEnum(dst []byte, null bool) []byte {
	if v.enum == nil {
		return dst
	}
	dst = append(dst, `,"enum":[`...)
	for i, text := range v.enum {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, text)
	}
	if null {
		dst = append(dst, `,null`...)
	}
	return append(dst, ']')
}
