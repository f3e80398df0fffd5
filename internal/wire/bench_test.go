package wire_test

import (
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

const token = "sdses_7n42DGM5Tflk9n8mt7Fhc70123456789ABCDEFGHIJKLMNOPQRST00aZ09"

func BenchmarkEnvelope(b *testing.B) {
	for name, body := range map[string]string{
		"validate": `{"api":"session","action":"validate","authToken":"` + token + `"}`,
		"gateway":  `{"api":"session","action":"validate","authToken":"` + token + `","params":{"tokenId":"` + token + `"}}`,
		"escapes":  `{"api":"session","action":"validate","authToken":"` + token + `","requestId":"caf\u00e9"}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			text := []byte(body)
			var e wire.Envelope
			for b.Loop() {
				var room [1][]byte
				items, _, err := wire.Split(room[:0], text, wire.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				if err := e.Decode(items[0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type validateParams struct {
	TokenID        string     `json:"tokenId,omitzero" doc:"A token."`
	SessionHandles []string   `json:"sessionHandles,omitzero" doc:"Handles." max:"100"`
	Refresh        *bool      `json:"refresh" doc:"Whether this counts as a use."`
	Password       api.Secret `json:"password,omitzero" doc:"A password."`
}

func BenchmarkParams(b *testing.B) {
	shape, err := wire.Describe[validateParams]()
	if err != nil {
		b.Fatal(err)
	}
	for name, body := range map[string]string{
		"empty":   `{}`,
		"token":   `{"tokenId":"` + token + `"}`,
		"handles": `{"sessionHandles":["` + token + `","` + token + `"],"refresh":false}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			text := []byte(body)
			for b.Loop() {
				var p validateParams
				if err := shape.Decode(text, &p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
