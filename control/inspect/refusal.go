package inspect

import "fmt"

// httpRefusals are the responses by cause. They carry no Date: an origin without a clock sends none (RFC 9110 §6.6.1).
var httpRefusals = [...]response{
	Malformed:   refusal(400, "Bad Request", "The request is malformed."),
	Mixed:       refusal(400, "Bad Request", "Requests on one connection must be for the same service."),
	NoMatch:     refusal(404, "Not Found", "Nothing is served under this host and path."),
	Timeout:     refusal(408, "Request Timeout", "The request did not arrive in time."),
	TooLarge:    refusal(431, "Request Header Fields Too Large", "The request head is too large."),
	Unavailable: refusal(503, "Service Unavailable", "No server can take the connection now."),
	Version:     refusal(505, "HTTP Version Not Supported", "Only HTTP/1.1 and HTTP/1.0 are spoken here."),
}

// response is a whole response and how much of it is head.
type response struct {
	octets []byte
	head   int
}

// refusal builds a response that closes the connection.
func refusal(status int, reason, text string) response {
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nServer: baton\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"+
		"Cache-Control: no-store\r\nConnection: close\r\n\r\n", status, reason, len(text)+1)
	return response{octets: []byte(head + text + "\n"), head: len(head)}
}

// to returns the response to a request; one of HEAD has no body (RFC 9110 §9.3.2).
func (r response) to(isHead bool) []byte {
	if isHead {
		return r.octets[:r.head:r.head]
	}
	return r.octets[:len(r.octets):len(r.octets)]
}
