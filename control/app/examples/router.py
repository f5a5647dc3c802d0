#!/usr/bin/python3
"""A routing application: it reads the head of each HTTP request without taking it (MSG_PEEK), chooses a job by the Host,
and asks for the connection to be handed over. Who serves reads the request from its first octet.

Usage: router.py SOCKET SERVICE NAME HOST=JOB...

SOCKET is the control socket of the host's daemon, SERVICE a DVIPA and port as in 10.77.0.10:80. A Host that begins with
"early." or "quiet." first gets interim responses: the first then asks for the hand-over at once, which is rejected while
octets are under way to the client; the second asks for it once the client has acknowledged them.
"""

import array
import json
import socket
import sys
import threading

MAX = 65536
INTERIM = 50  # responses: more than a client's first window holds


class Control:
    """The control socket. Answers about connections are brought to whoever waits for them."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(path)
        self.waiting = {}
        self.table = []

    def send(self, **message):
        self.socket.send(json.dumps(message).encode())

    def receive(self):
        """Returns the next message and the file descriptors that came with it; None at the end."""
        data, ancillary, _, _ = self.socket.recvmsg(MAX, socket.CMSG_SPACE(4 * 4))
        fds = array.array("i")
        for level, kind, octets in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(octets[: len(octets) - len(octets) % fds.itemsize])
        return (json.loads(data) if data else None), list(fds)

    def transfer(self, conn, job, when):
        """Asks for a hand-over and waits for the answer."""
        answer = self.waiting[conn] = [threading.Event(), None]
        self.send(type="transfer", conn=conn, job=job, when=when)
        answer[0].wait()
        del self.waiting[conn]
        return answer[1]

    def answer(self, message):
        if message["conn"] in self.waiting:
            event = self.waiting[message["conn"]]
            event[1] = message
            event[0].set()


def head(connection):
    """Looks at the request until its head is complete. Returns None if the client ends before."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        # MSG_PEEK returns at once what is there, so wait for more than was seen.
        more = connection.recv(MAX, socket.MSG_PEEK)
        if len(more) <= len(seen):
            if not more:
                return None
            threading.Event().wait(0.001)
            continue
        seen = more
    return seen[: seen.index(b"\r\n\r\n")].decode("latin-1")


def host_of(text):
    for line in text.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "host":
            return value.strip().lower()
    return ""


def refuse(connection, why):
    body = why + "\n"
    connection.sendall(
        f"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )


def serve(control, message, fd, rules):
    with socket.socket(fileno=fd) as connection:
        text = head(connection)
        if text is None:
            return
        host = host_of(text)
        kind, _, rest = host.partition(".")
        when = "quiescent" if kind == "quiet" else "now"
        if kind in ("early", "quiet"):
            connection.sendall((b"HTTP/1.1 102 Processing\r\nX-Padding: " + b"p" * 4000 + b"\r\n\r\n") * INTERIM)
            host = rest
        for job in rules.get(host, ["none"]):
            answer = control.transfer(message["conn"], job, when)
            print("transfer", message["client"], job, answer["type"], answer.get("code", ""), flush=True)
            if answer["type"] != "rejected":
                return
        refuse(connection, f"{answer['by']}: {answer['code']}: {answer.get('detail', '')}")


def main():
    path, service, name, *arguments = sys.argv[1:]
    rules = {}
    for argument in arguments:
        host, _, job = argument.partition("=")
        rules.setdefault(host, []).append(job)
    control = Control(path)
    control.send(type="register", role="router", service=service, name=name)
    while True:
        message, fds = control.receive()
        if message is None:
            sys.exit("the daemon is gone")
        kind = message["type"]
        if kind == "registered":
            print("registered", message["host"], flush=True)
        elif kind == "connection":
            threading.Thread(target=serve, args=(control, message, fds[0], rules), daemon=True).start()
        elif kind in ("accepted", "rejected", "ended"):
            control.answer(message)
        elif kind == "dpt":
            for row in message.get("targets", []):
                print("dpt", row["job"], row["host"], "ready" if row["ready"] else row["reason"], flush=True)
        elif kind == "error":
            sys.exit(f"{message['code']}: {message['detail']}")


main()
