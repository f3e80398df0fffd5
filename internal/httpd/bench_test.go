package httpd_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"

	"sessiond/internal/config"
	"sessiond/internal/httpd"
)

const sample = "POST /api HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: gateway/1.0\r\nAccept: application/json\r\nContent-Type: application/json\r\n" +
	"Authorization: Bearer sdses_0123456789012345678901234567890123456789012345678901234567\r\nContent-Length: 37\r\n\r\n" +
	`{"api":"session","action":"validate"}`

// BenchmarkRequest compares this package with fasthttp alone, over sockets in
// memory, which cost next to nothing, and over TCP.
func BenchmarkRequest(b *testing.B) {
	b.Run("fasthttp", func(b *testing.B) {
		ln := fasthttputil.NewInmemoryListener()
		s := bare()
		go func() { _ = s.Serve(ln) }()
		defer func() { _ = s.Shutdown() }()
		exchange(b, ln.Dial)
	})
	b.Run("httpd", func(b *testing.B) {
		ln := fasthttputil.NewInmemoryListener()
		s := httpd.New(httpd.Options{Holder: config.NewHolder(configuration())}, &echo{})
		httpd.ListenOn(b.Context(), s, ln)
		serve(b, s)
		exchange(b, ln.Dial)
	})
	b.Run("fasthttp over TCP", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed below
		if err != nil {
			b.Fatal(err)
		}
		s := bare()
		go func() { _ = s.Serve(ln) }()
		defer func() { _ = s.Shutdown() }()
		exchange(b, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }) //nolint:noctx // loopback
	})
	b.Run("httpd over TCP", func(b *testing.B) {
		s := start(b, &echo{}, nil)
		exchange(b, func() (net.Conn, error) { return net.Dial("tcp", s.Addrs()[0].String()) }) //nolint:noctx // loopback
	})
}

// bare is a server that does nothing but what fasthttp does by itself.
func bare() *fasthttp.Server {
	return &fasthttp.Server{NoDefaultServerHeader: true, MaxIdleWorkerDuration: 100 * time.Millisecond, Handler: func(ctx *fasthttp.RequestCtx) {
		ctx.SetContentType("application/json")
		ctx.SetBodyString(`{"result":{},"errorCode":0,"errorMessage":""}`)
	}}
}

func exchange(b *testing.B, dial func() (net.Conn, error)) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		nc, err := dial()
		if err != nil {
			b.Error(err)
			return
		}
		defer func(nc net.Conn) { _ = nc.Close() }(nc)
		r := bufio.NewReader(nc)
		request := []byte(sample)
		for pb.Next() {
			if _, err := nc.Write(request); err != nil {
				b.Error(err)
				return
			}
			if err := skipAnswer(r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// skipAnswer reads an answer whose body ends in a brace of depth 0.
func skipAnswer(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
	}
	_, err := r.Discard(len(`{"result":{},"errorCode":0,"errorMessage":""}`))
	if err != nil && err != io.EOF {
		return err
	}
	return nil
}

// BenchmarkGuard is what every request pays for the checks of its header.
func BenchmarkGuard(b *testing.B) {
	var header fasthttp.RequestHeader
	if err := header.Read(bufio.NewReader(strings.NewReader(sample))); err != nil {
		b.Fatal(err)
	}
	guard := httpd.Guarding(httpd.New(httpd.Options{Holder: config.NewHolder(configuration())}, &echo{}), &header)
	b.ReportAllocs()
	for b.Loop() {
		if !guard() {
			b.Fatal("refused")
		}
	}
}
