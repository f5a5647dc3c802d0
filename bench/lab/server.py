"""Answers every request with the host's name, method, Host and path; keep-alive. Usage: server.py NAME"""

import http.server
import sys

NAME = sys.argv[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{NAME} {self.command} {self.headers['Host']} {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Target", NAME)
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Server(("0.0.0.0", 80), Handler).serve_forever()
