package inspect

import (
	"fmt"
	"testing"
)

// browser is a request as browsers send it.
const browser = "GET /static/js/app.9f3c1b.js?v=17 HTTP/1.1\r\n" +
	"Host: shop.b.example\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Referer: https://shop.b.example/\r\nCookie: session=4b1d5bb7c4d14a7f8f9c7f4d1f9e0a11; theme=dark\r\n" +
	"Sec-Fetch-Dest: script\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: same-origin\r\n" +
	"Connection: keep-alive\r\n\r\n"

func BenchmarkInspect(b *testing.B) {
	for _, row := range []struct{ name, data string }{
		{"curl", get("shop.b.example", "/index.html")},
		{"browser", browser},
		{"32k", fill(32767)},
	} {
		b.Run(row.name, func(b *testing.B) {
			benchmarkInspect(b, newHTTP(b, "rest", testRules...), row.data, len(row.data))
		})
	}
	b.Run("32k octet by octet", func(b *testing.B) {
		benchmarkInspect(b, newHTTP(b, "rest", testRules...), fill(32767), 1)
	})
}

// BenchmarkRules shows that the number of rules does not matter.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		rules := make([]Rule, n)
		for i := range rules {
			rules[i] = Rule{Host: fmt.Sprintf("h%d.example", i), Path: fmt.Sprintf("/p%d/", i), Choice: to("job")}
		}
		h := newHTTP(b, "rest", rules...)
		data := get(fmt.Sprintf("h%d.example", n-1), fmt.Sprintf("/p%d/x", n-1))
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkInspect(b, h, data, len(data)) })
	}
}

// benchmarkInspect gives data to a session in pieces.
func benchmarkInspect(b *testing.B, h *HTTP, data string, piece int) {
	octets := []byte(data)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var s httpSession
	for b.Loop() {
		s = httpSession{http: h, limit: 65535}
		var d Decision
		for n := piece; d.Verdict == NeedMore; n = min(n+piece, len(octets)) {
			d = s.Inspect(octets[:n])
		}
		if d.Verdict != Route {
			b.Fatal(outcome(d))
		}
	}
}
