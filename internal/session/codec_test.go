package session_test

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
	"sessiond/store"
)

// fullRecord has no zero member. Its stored form is goldenRecord.
func fullRecord() *session.Record {
	secret := session.Secret{Mask: "QRST1bEN", ValidUntil: 1_800_000_000, LastUsed: 1_799_999_999, Nonce: []byte("nonce")}
	for i := range secret.Hash {
		secret.Hash[i] = byte(i + 1)
	}
	repeat := secret.Hash
	older := session.Secret{Hash: secret.Hash, Mask: "older678", ValidUntil: 7, LastUsed: 8, Nonce: []byte{0}}
	older.Hash[0] = 99
	return &session.Record{
		Handle: handleOfVectors, Prefix: "sdkey_", Secrets: []session.Secret{secret, older},
		AccountID: api.ID{15: 7}, Realm: "web", Username: "José",
		Permanent: true, RememberMe: true, Description: "on the train",
		Settings: config.Settings{
			DefaultAPI: "hub", DefaultDebug: "max", DefaultDatabaseName: "db", DefaultOwnerName: "owner", DefaultBinaryFormat: "hex",
			DefaultVariantFormat: "json", TransformBufferBytes: 4096,
			DefaultResponseOptions: api.ResponseOptions{
				NumberFormat: "string", DataFormat: "arrays", BinaryFormat: "base64", Omit: []string{"errorMessage"},
				IncludeFields: []string{"a", "b"}, ExcludeFields: []string{"c"}, SetCookie: true,
			},
		},
		IdleSeconds: 3600, Tolerance: 45, MaxSeconds: 86_400, AbandonAfter: 2_592_000, CursorSeconds: 300,
		Created: 1_772_439_300, Authenticated: 1_772_439_301, LastAccess: 1_772_439_302,
		Methods: session.ByPassword | session.ByIssuer, Address: netip.MustParseAddr("2001:db8::1"), UserAgent: "curl/8.14.1",
		Epochs: session.Epochs{Server: 1, Realm: 2, Account: 300}, Revision: 4, Client: api.ID{15: 9},
		Properties: map[string]string{"theme": "dark", "": "no name"},
		End:        session.End{Status: session.Revoked, At: 1_772_439_400, Reason: "revoked", By: "sh_032anbLSr77FOCalmOmFEv", LastUse: 1_772_439_350},
		Frozen:     &session.Frozen{Roles: []string{"clerk", "operator"}, RealmRoles: []string{"shopper"}, Permissions: account.SessionsRead | account.StoreImport},
		Repeat:     repeat, Noticed: 1_772_439_320,
		Last:      session.Sighting{Address: netip.MustParseAddr("2001:db8::9"), UserAgent: "curl/8.5.0", At: 1_700_000_000},
		Sightings: []session.Sighting{{Address: netip.MustParseAddr("192.0.2.1"), At: 1_772_439_300, UserAgent: "a"}, {Address: netip.MustParseAddr("2001:db8::2"), At: 1_772_439_303, UserAgent: "b"}},
	}
}

// goldenRecord is what files hold: a program that reads or writes it otherwise
// loses sessions.
const goldenRecord = "" +
	"0a0673646b65795f123f0a200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20120851525354" +
	"3162454e1880c8ceb40d20fec7ceb40d2a056e6f6e636512330a206302030405060708090a0b0c0d0e0f1011121314151617" +
	"18191a1b1c1d1e1f2012086f6c646572363738180e20102a01001a100000000000000000000000000000000722037765622a" +
	"054a6f73c3a930033a0c6f6e2074686520747261696e42540a0368756212036d61781a02646222056f776e65722a03686578" +
	"32046a736f6e3880404206737472696e674a0661727261797352066261736536345a0c6572726f724d657373616765620161" +
	"6201626a0163700148a0385080c60a5880b4bc0260d80468889caa9a0d708a9caa9a0d788c9caa9a0d8001038a011020010d" +
	"b800000000000000000000000192010b6375726c2f382e31342e31980101a00102a801ac02b00104ba011000000000000000" +
	"000000000000000009c20100ca01076e6f206e616d65c201057468656d65ca01046461726bd20132080510d09daa9a0d1a07" +
	"7265766f6b6564221973685f303332616e624c53723737464f43616c6d4f6d46457628ec9caa9a0dda011e0a05636c65726b" +
	"0a086f70657261746f72120773686f7070657218818002e2010f0a04c000020110889caa9a0d1a0161e2011b0a1020010db8" +
	"000000000000000000000002108e9caa9a0d1a0162ea01200102030405060708090a0b0c0d0e0f101112131415161718191a" +
	"1b1c1d1e1f20f0015afa01240a1020010db80000000000000000000000091080c49fd50c1a0a6375726c2f382e352e30" +
	"8002b09caa9a0d"

func TestStoredForm(t *testing.T) {
	want, err := hex.DecodeString(goldenRecord)
	if err != nil {
		t.Fatal(err)
	}
	r := fullRecord()
	if got := r.Encode(); string(got) != string(want) {
		t.Errorf("it is written as\n%x, want\n%x", got, want)
	}
	got, err := session.DecodeRecord(r.Handle, want)
	if diff := cmp.Diff(r, got, byValue...); err != nil || diff != "" {
		t.Errorf("it is read as (-want +got), %v\n%s", err, diff)
	}
}

// A member that is added and not stored shows here.
func TestTheFullRecordHasNoZeroMember(t *testing.T) {
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch {
		case v.IsZero():
			t.Errorf("%s is zero", path)
		case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[netip.Addr]():
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
			for i := range v.Len() {
				walk(path, v.Index(i))
			}
		}
	}
	walk("Record", reflect.ValueOf(*fullRecord()))
}

func TestRecordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		got, err := session.DecodeRecord(r.Handle, r.Encode())
		if diff := cmp.Diff(r, got, byValue...); err != nil || diff != "" {
			t.Fatalf("(-want +got), %v\n%s", err, diff)
		}
	})
}

func TestMalformedRecords(t *testing.T) {
	full := fullRecord().Encode()
	without := func(change func(*session.Record)) []byte {
		r := fullRecord()
		change(r)
		return r.Encode()
	}
	number := func(n uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), n)
	}
	endOf := func(end []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(full, 26, protowire.BytesType), end)
	}
	for _, tt := range []struct {
		why  string
		data []byte
	}{
		{"nothing", nil},
		{"no secret", without(func(r *session.Record) { r.Secrets = nil })},
		{"no account", without(func(r *session.Record) { r.AccountID = api.ID{} })},
		{"no realm", without(func(r *session.Record) { r.Realm = "" })},
		{"a field zero", append(slices.Clip(full), 0, 0)},
		{"an account of three bytes", protowire.AppendBytes(protowire.AppendTag(full, 3, protowire.BytesType), []byte("abc"))},
		{"an address of three bytes", protowire.AppendBytes(protowire.AppendTag(full, 17, protowire.BytesType), []byte("abc"))},
		{"a hash of three bytes", protowire.AppendBytes(protowire.AppendTag(full, 2, protowire.BytesType), append([]byte{10, 3}, "abc"...))},
		{"the hash of a key of three bytes", protowire.AppendBytes(protowire.AppendTag(full, 29, protowire.BytesType), []byte("abc"))},
		{"a secret without a hash", protowire.AppendBytes(protowire.AppendTag(full, 2, protowire.BytesType), nil)},
		{"an end without a status", endOf(nil)},
		{"an end that is none", endOf(number(uint64(session.Active)))},
		{"an end of a later version", endOf(number(uint64(session.Replaced) + 1))},
		{"an end whose status is cut to a known one", endOf(number(256 + uint64(session.Ended)))},
	} {
		if _, err := session.DecodeRecord(handleOfVectors, tt.data); !errors.Is(err, session.ErrRecord) {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
	for i := range full {
		if r, err := session.DecodeRecord(handleOfVectors, full[:i]); err == nil && cmp.Equal(r, fullRecord(), byValue...) {
			t.Errorf("cut at %d it is read as if it were whole", i)
		}
	}
}

// A record of a newer program is refused: to rewrite it would lose what this one
// does not know.
func TestUnknownFieldsAreRefused(t *testing.T) {
	for _, field := range [][]byte{
		protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "of a later version"),
		protowire.AppendFixed64(protowire.AppendTag(nil, 1001, protowire.Fixed64Type), 1),
		protowire.AppendFixed32(protowire.AppendTag(nil, 1002, protowire.Fixed32Type), 1),
		protowire.AppendTag(protowire.AppendTag(nil, 1003, protowire.StartGroupType), 1003, protowire.EndGroupType),
		protowire.AppendVarint(protowire.AppendTag(nil, 1004, protowire.VarintType), 1),
	} {
		if _, err := session.DecodeRecord(handleOfVectors, append(field, fullRecord().Encode()...)); !errors.Is(err, session.ErrRecord) {
			t.Errorf("%x before a record: %v", field, err)
		}
	}
}

// What can be read at all is written so that it is read the same.
func FuzzRecord(f *testing.F) {
	f.Add(fullRecord().Encode())
	f.Add(fullRecord().Encode()[:100])
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := session.DecodeEnd(data); err != nil && !errors.Is(err, session.ErrRecord) {
			t.Errorf("an end: %v", err)
		}
		if _, err := session.DecodeGeneration(store.Item{Value: data}); err != nil && !errors.Is(err, session.ErrRecord) {
			t.Errorf("a generation: %v", err)
		}
		if err := session.ReadTouches(data, func(api.ID, uint32) {}); err != nil && !errors.Is(err, session.ErrRecord) {
			t.Errorf("a block: %v", err)
		}
		r, err := session.DecodeRecord(handleOfVectors, data)
		if err != nil {
			if !errors.Is(err, session.ErrRecord) {
				t.Errorf("a record: %v", err)
			}
			return
		}
		again, err := session.DecodeRecord(handleOfVectors, r.Encode())
		if diff := cmp.Diff(r, again, byValue...); err != nil || diff != "" {
			t.Fatalf("(-first +second), %v\n%s", err, diff)
		}
	})
}

// FuzzRecordOfValues is TestRecordsComeBack, led by what the code does.
func FuzzRecordOfValues(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		r := drawRecord(t)
		got, err := session.DecodeRecord(r.Handle, r.Encode())
		if diff := cmp.Diff(r, got, byValue...); err != nil || diff != "" {
			t.Fatalf("(-want +got), %v\n%s", err, diff)
		}
	}))
}

func TestBlocksOfLastAccesses(t *testing.T) {
	a, b := api.ID{15: 1}, api.ID{1: 1}
	block := session.AppendTouch(session.AppendTouch(nil, a, 7), b, 1<<32-1)
	if got, want := hex.EncodeToString(block), "0000000000000000000000000000000100000007"+"00010000000000000000000000000000ffffffff"; got != want {
		t.Errorf("a block is written %s, want %s", got, want)
	}
	var read []string
	note := func(h api.ID, at uint32) { read = append(read, string(session.AppendTouch(nil, h, at))) }
	if err := session.ReadTouches(block, note); err != nil || len(read) != 2 || read[0]+read[1] != string(block) {
		t.Errorf("read %x, %v", read, err)
	}
	for _, n := range []int{1, 19, 21, 39} {
		if err := session.ReadTouches(block[:n], func(api.ID, uint32) {}); !errors.Is(err, session.ErrRecord) {
			t.Errorf("a block cut at %d: %v", n, err)
		}
	}
	if err := session.ReadTouches(nil, note); err != nil {
		t.Error(err)
	}
}

func TestGenerations(t *testing.T) {
	at := time.Unix(1_772_439_340, 987_654_321).UTC()
	leak, drill := account.Why{At: at, Reason: "leak", By: "sh_x"}, account.Why{At: at.Add(-time.Hour), Reason: "drill"}
	for _, tt := range []struct {
		epoch account.Epoch
		want  string // in hexadecimal
	}{
		{account.Epoch{}, ""},
		{account.Epoch{Temporary: 1}, "0801"},
		{account.Epoch{Temporary: 300, All: 2}, "08ac021002"},
		{account.Epoch{Temporary: 1, Rises: []account.Rise{{Temporary: 1, Why: leak}}}, "080118d89caa9a0d22046c65616b2a0473685f7830b1d1f9d603"},
		{
			account.Epoch{Temporary: 9, All: 4, Rises: []account.Rise{{Temporary: 7, All: 3, Why: drill}, {Temporary: 8, All: 4}, {Temporary: 9, All: 4, Why: leak}}},
			"0809100418d89caa9a0d22046c65616b2a0473685f7830b1d1f9d603" + "3a17" + "0807100318b8e4a99a0d22056472696c6c30b1d1f9d603" + "3a04" + "08081004",
		},
	} {
		g := session.Generation{Epoch: tt.epoch, Rev: 5}
		if form := hex.EncodeToString(g.Encode()); form != tt.want {
			t.Errorf("%+v is written %s, want %s", g, form, tt.want)
		}
		got, err := session.DecodeGeneration(store.Item{Value: g.Encode(), Rev: 5})
		if diff := cmp.Diff(g, got); err != nil || diff != "" {
			t.Errorf("(-want +got), %v\n%s", err, diff)
		}
	}
}

// What was written before an epoch kept more than its last rise is read.
func TestGenerationsOfBefore(t *testing.T) {
	form, err := hex.DecodeString("0809100418d89caa9a0d22046c65616b2a0473685f78")
	if err != nil {
		t.Fatal(err)
	}
	got, err := session.DecodeGeneration(store.Item{Value: form})
	last := account.Why{At: time.Unix(1_772_439_340, 0).UTC(), Reason: "leak", By: "sh_x"}
	want := session.Generation{Epoch: account.Epoch{Temporary: 9, All: 4, Rises: []account.Rise{{Temporary: 9, All: 4, Why: last}}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("(-want +got), %v\n%s", err, diff)
	}
	if why, ended := got.Ended(false, 2); !ended || why != last {
		t.Errorf("a session of long ago ended by %+v, %v", why, ended)
	}
}

func TestGenerationsRefuse(t *testing.T) {
	for why, text := range map[string]string{
		"a field of later":                 "4001",
		"a second that is too long":        "18023080a8d6b907",
		"an earlier rise with one in it":   "3a023a00",
		"an earlier rise with a field cut": "3a0108",
	} {
		form, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := session.DecodeGeneration(store.Item{Value: form}); !errors.Is(err, session.ErrRecord) {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// byValue compares what == cannot, and takes absent and empty for the same.
var byValue = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b []byte) bool { return string(a) == string(b) }),
}

// drawRecord draws a record without a zero member.
func drawRecord(t *rapid.T) *session.Record {
	text := func(label string) string { return rapid.StringN(1, 20, 60).Draw(t, label) }
	texts := func(label string) []string { return rapid.SliceOfN(rapid.StringN(0, 8, 30), 1, 4).Draw(t, label) }
	positive := func(label string) int64 { return rapid.Int64Range(1, 1<<40).Draw(t, label) }
	id := func(label string) api.ID {
		return api.ID(rapid.SliceOfN(rapid.ByteRange(1, 255), 16, 16).Draw(t, label))
	}
	var secrets []session.Secret
	for range rapid.IntRange(1, 3).Draw(t, "secrets") {
		s := session.Secret{Mask: text("mask"), ValidUntil: positive("until"), LastUsed: positive("used"), Nonce: rapid.SliceOfN(rapid.Byte(), 1, 30).Draw(t, "nonce")}
		copy(s.Hash[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
		secrets = append(secrets, s)
	}
	size := rapid.SampledFrom([]int{4, 16}).Draw(t, "address size")
	address, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address"))
	repeat := secrets[0].Hash
	return &session.Record{
		Handle: id("handle"), Prefix: rapid.SampledFrom([]string{"sdses_", "sdkey_", "acme-live_"}).Draw(t, "prefix"), Secrets: secrets,
		AccountID: id("account"), Realm: text("realm"), Username: text("username"),
		Permanent: true, RememberMe: rapid.Bool().Draw(t, "remember"), Description: text("description"),
		Settings: config.Settings{
			DefaultAPI: text("api"), DefaultDebug: text("debug"), DefaultDatabaseName: text("database"), DefaultOwnerName: text("owner"),
			DefaultBinaryFormat: text("binary"), DefaultVariantFormat: text("variant"), TransformBufferBytes: positive("buffer"),
			DefaultResponseOptions: api.ResponseOptions{
				NumberFormat: text("number"), DataFormat: text("data"), BinaryFormat: text("binary"), Omit: texts("omit"),
				IncludeFields: texts("include"), ExcludeFields: texts("exclude"), SetCookie: true,
			},
		},
		IdleSeconds: positive("idle"), Tolerance: rapid.Int64Range(1, 600).Draw(t, "tolerance"), MaxSeconds: positive("max"), AbandonAfter: positive("abandon"), CursorSeconds: -positive("cursor"),
		Created: positive("created"), Authenticated: positive("authenticated"), LastAccess: positive("last"),
		Methods: session.Methods(rapid.ByteRange(1, 255).Draw(t, "methods")), Address: address, UserAgent: text("agent"),
		Epochs:   session.Epochs{Server: rapid.Uint64Min(1).Draw(t, "server"), Realm: rapid.Uint64Min(1).Draw(t, "realm"), Account: rapid.Uint64Min(1).Draw(t, "epoch")},
		Revision: rapid.Uint64Min(1).Draw(t, "revision"), Client: id("client"),
		Properties: rapid.MapOfN(rapid.StringN(0, 8, 30), rapid.StringN(0, 8, 30), 1, 4).Draw(t, "properties"),
		Repeat:     repeat, Noticed: positive("noticed"),
		Sightings: []session.Sighting{{Address: address, At: positive("seen")}},
		End: session.End{
			Status: session.Status(rapid.ByteRange(byte(session.Ended), byte(session.Replaced)).Draw(t, "status")),
			At:     positive("at"), Reason: text("reason"), By: text("by"),
		},
	}
}
