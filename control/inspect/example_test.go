package inspect_test

import (
	"fmt"

	"baton/control/inspect"
)

// A request that comes in two segments is decided by the second.
func Example() {
	http, err := inspect.NewHTTP(inspect.HTTPConfig{
		Rules:   []inspect.Rule{{Host: "a.example", Path: "/static/", Choice: inspect.Choice{Job: "files"}}, {Host: "*.example", Choice: inspect.Choice{Job: "web"}}},
		Default: "web",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	session := http.Session(32768)
	request := []byte("GET /static/logo.png HTTP/1.1\r\nHost: A.example:80\r\n\r\n")

	fmt.Println(session.Inspect(request[:20]).Verdict)
	d := session.Inspect(request)
	fmt.Println(d.Verdict, d.Job)
	// Output:
	// need more
	// route files
}

// Later requests in hand must be for the same job.
func ExampleSession_pipelined() {
	http, err := inspect.NewHTTP(inspect.HTTPConfig{
		Rules: []inspect.Rule{{Host: "a.example", Choice: inspect.Choice{Job: "a"}}, {Host: "b.example", Choice: inspect.Choice{Job: "b"}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	d := http.Session(32768).Inspect([]byte(
		"GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET / HTTP/1.1\r\nHost: b.example\r\n\r\n"))
	fmt.Println(d.Verdict, d.Cause)
	fmt.Printf("%.24q\n", d.Reply)
	// Output:
	// refuse mixed
	// "HTTP/1.1 400 Bad Request"
}
