package session

import (
	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/config"
)

const (
	fgAPI protowire.Number = 1 + iota
	fgDebug
	fgDatabase
	fgOwner
	fgBinary
	fgVariant
	fgBuffer
	fgNumberFormat
	fgDataFormat
	fgBinaryFormat
	fgOmit
	fgInclude
	fgExclude
	fgSetCookie
)

func encodeSettings(s *config.Settings) []byte {
	e := encoder(make([]byte, 0, 64))
	e.text(fgAPI, s.DefaultAPI)
	e.text(fgDebug, s.DefaultDebug)
	e.text(fgDatabase, s.DefaultDatabaseName)
	e.text(fgOwner, s.DefaultOwnerName)
	e.text(fgBinary, s.DefaultBinaryFormat)
	e.text(fgVariant, s.DefaultVariantFormat)
	e.signed(fgBuffer, s.TransformBufferBytes)
	o := &s.DefaultResponseOptions
	e.text(fgNumberFormat, o.NumberFormat)
	e.text(fgDataFormat, o.DataFormat)
	e.text(fgBinaryFormat, o.BinaryFormat)
	for _, list := range []struct {
		field  protowire.Number
		values []string
	}{{fgOmit, o.Omit}, {fgInclude, o.IncludeFields}, {fgExclude, o.ExcludeFields}} {
		for _, v := range list.values {
			e.nested(list.field, []byte(v))
		}
	}
	if o.SetCookie {
		e.number(fgSetCookie, 1)
	}
	return e
}

func decodeSettings(data []byte) (config.Settings, error) {
	var s config.Settings
	o := &s.DefaultResponseOptions
	err := fields(data, func(f protowire.Number, n uint64, b []byte) error {
		switch f {
		case fgAPI:
			s.DefaultAPI = string(b)
		case fgDebug:
			s.DefaultDebug = string(b)
		case fgDatabase:
			s.DefaultDatabaseName = string(b)
		case fgOwner:
			s.DefaultOwnerName = string(b)
		case fgBinary:
			s.DefaultBinaryFormat = string(b)
		case fgVariant:
			s.DefaultVariantFormat = string(b)
		case fgBuffer:
			s.TransformBufferBytes = signed(n)
		case fgNumberFormat:
			o.NumberFormat = string(b)
		case fgDataFormat:
			o.DataFormat = string(b)
		case fgBinaryFormat:
			o.BinaryFormat = string(b)
		case fgOmit:
			o.Omit = append(o.Omit, string(b))
		case fgInclude:
			o.IncludeFields = append(o.IncludeFields, string(b))
		case fgExclude:
			o.ExcludeFields = append(o.ExcludeFields, string(b))
		case fgSetCookie:
			o.SetCookie = n != 0
		default:
			return unknown(f)
		}
		return nil
	})
	return s, err
}
