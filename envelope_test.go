package main

import (
	"strings"
	"testing"

	"sessiond/internal/api"
	"sessiond/store/mem"
)

// The bytes of answers: the order of members, and that only debug max indents.
func TestAnswersAsBytes(t *testing.T) {
	s, err := newStage(t.Context(), props{store: mem.New(), hasher: cheapHasher(t), logins: []string{"alice"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ request, want string }{
		{
			`{"action":"pingSession","requestId":"r","authToken":"${token:alice}"}`,
			`{"result":{},"errorCode":0,"errorMessage":"","requestId":"r","authToken":"${token:alice}"}`,
		},
		{
			`{"action":"fly","requestId":-0.00e1,"authToken":"${token:alice}"}`,
			`{"result":{},"errorCode":21003,"errorMessage":"the api hub has no such action: listActions lists them","requestId":-0.00e1,"errorData":{"pointer":"/action"}}`,
		},
		{
			`{"action":"fly","debug":"max","requestId":[ 1, 2 ]}`,
			`{
  "result": {},
  "errorCode": 21003,
  "errorMessage": "the api hub has no such action: listActions lists them",
  "requestId": [
    1,
    2
  ],
  "errorData": {
    "pointer": "/action"
  },
  "debugInfo": {
    "request": {
      "action": "fly",
      "debug": "max",
      "requestId": [
        1,
        2
      ]
    },
    "serverSuppliedValues": {
      "api": "hub",
      "apiVersion": "1.0",
      "debug": "max",
      "responseOptions": {
        "numberFormat": "number",
        "dataFormat": "objects",
        "binaryFormat": "hex"
      }
    },
    "warnings": []
  }
}`,
		},
		{
			`[{"action":"pingSession","requestId": 1.50 }, {"action":"pingSession","responseOptions":{"omit":["errorMessage"]}}]`,
			`[{"result":{},"errorCode":0,"errorMessage":"","requestId":1.50},{"result":{},"errorCode":0}]`,
		},
		{"{\"action\":\"ping\xffSession\"}", `{"result":{},"errorCode":21001,"errorMessage":"the JSON text must be UTF-8","errorData":{"pointer":"/action"}}`},
		{"{\"action\":\"pingSession\",\"\xc3\x28\":1}", `{"result":{},"errorCode":21001,"errorMessage":"the JSON text must be UTF-8"}`},
	} {
		request, err := s.fill(tt.request)
		if err != nil {
			t.Fatal(err)
		}
		want, err := s.fill(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.dispatcher.Serve(t.Context(), &api.Request{Body: []byte(request)}, []byte("before")); string(got.Body) != "before"+want {
			t.Errorf("%s\nis answered\n%s\nwant\n%s", request, strings.TrimPrefix(string(got.Body), "before"), want)
		}
	}
}
