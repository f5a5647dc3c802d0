#!/usr/bin/python3
"""A routing application: it reads the head of each HTTP request without taking it (MSG_PEEK), chooses a job by the Host,
and asks for the connection to be handed over. Who serves reads the request from its first octet.

Usage: router.py SOCKET SERVICE NAME HOST=JOB...

SOCKET is the control socket of the host's daemon, a path or udp://ADDRESS:PORT/FILE with the token in FILE; SERVICE a DVIPA
and port as in 10.77.0.10:80. A Host that begins with "early." or "quiet." first gets interim responses: the first then asks for the hand-over at once, which is rejected while
octets are under way to the client; the second asks for it once the client has acknowledged them.
"""

import socket
import sys
import threading

from baton_app import Answers, connect, report

MAX = 65536
INTERIM = 50  # responses: more than a client's first window holds


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


def serve(control, answers, message, fd, rules):
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
            control.send(type="transfer", conn=message["conn"], job=job, when=when)
            answer = answers.take(message["conn"])
            report("transfer", message["client"], job, answer["type"], answer.get("code", ""))
            if answer["type"] != "rejected":
                return
        refuse(connection, f"{answer['by']}: {answer['code']}: {answer.get('detail', '')}")


def main():
    path, service, name, *arguments = sys.argv[1:]
    rules = {}
    for argument in arguments:
        host, _, job = argument.partition("=")
        rules.setdefault(host, []).append(job)
    control, answers = connect(path), Answers()
    control.send(type="register", role="router", service=service, name=name)
    while True:
        message, files = control.receive()
        if message is None:
            sys.exit("the daemon is gone")
        kind = message["type"]
        if kind == "registered":
            report("registered", message["host"])
        elif kind == "connection":
            arguments = (control, answers, message, files["connection"], rules)
            threading.Thread(target=serve, args=arguments, daemon=True).start()
        elif kind in ("accepted", "rejected", "ended"):
            answers.put(message["conn"], message)
        elif kind == "dpt":
            for row in message.get("targets", []):
                report("dpt", row["job"], row["host"], "ready" if row["ready"] else row["reason"])
        elif kind == "error":
            sys.exit(f"{message['code']}: {message['detail']}")


main()
