#!/usr/bin/python3
"""A routing application that authenticates POP3 users, and gives whoever has the mailbox the authenticated connection:
the user is the application state. The client sees one server; the mailbox's never asks for the password.

Usage: pop3_router.py SOCKET SERVICE NAME USER:PASSWORD=[!]JOB[,OCTETS]...

SOCKET is the control socket of the host's daemon, a path or udp://ADDRESS:PORT/FILE with the token in FILE; SERVICE a DVIPA
and port as in 10.77.0.10:110. With OCTETS the state is filled up to that length; with -1 there is none.
With "!" the target is not asked. A USER of "anyone" matches every user whose name no other has.
"""

import json
import socket
import sys
import threading

from baton_app import Answers, connect, report


def authenticate(lines, reply, users):
    """Speaks POP3 until the client is authenticated. Returns the user and what is known of it; None if it left."""
    user = ""
    for line in lines:
        verb, _, argument = line.decode("latin-1").strip().partition(" ")
        verb = verb.upper()
        if verb == "CAPA":
            reply("+OK\r\nUSER\r\n.")
        elif verb == "USER":
            user = argument
            reply("+OK")
        elif verb == "PASS":
            known = users.get(user, users.get("anyone"))
            if known and known[0] == argument:
                return user, known
            reply("-ERR [AUTH] wrong")
        elif verb == "QUIT":
            reply("+OK bye")
            return None
        else:
            reply("-ERR who are you?")
    return None


def state_of(user, octets):
    if octets < 0:
        return b""
    state = {"user": user, "padding": ""}
    state["padding"] = "x" * max(0, octets - len(json.dumps(state)))
    return json.dumps(state).encode()


def serve(control, answers, message, fd, users):
    with socket.socket(fileno=fd) as connection, connection.makefile("rb", buffering=0) as lines:
        reply = lambda text: connection.sendall(text.encode() + b"\r\n")
        reply("+OK POP3 ready")
        # Line by line and unbuffered: what the client sends after PASS stays for the mailbox's server.
        while found := authenticate(lines, reply, users):
            user, (_, job, octets) = found
            conn = message["conn"]
            control.send(type="transfer", conn=conn, job=job.lstrip("!"), when="quiescent", unconditional=job.startswith("!"),
                         state=state_of(user, octets))
            answer = answers.take(conn)
            report("transfer", user, job, answer["type"], answer.get("host", ""), answer.get("by", ""), answer.get("code", ""))
            if answer["type"] != "rejected":
                return
            reply(f"-ERR {answer['by']}: {answer['code']}: {answer.get('detail', '')}")


def main():
    path, service, name, *arguments = sys.argv[1:]
    users = {}
    for argument in arguments:
        login, _, job = argument.partition("=")
        user, _, password = login.partition(":")
        job, _, octets = job.partition(",")
        users[user] = (password, job, int(octets or 0))
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
            arguments = (control, answers, message, files["connection"], users)
            threading.Thread(target=serve, args=arguments, daemon=True).start()
        elif kind in ("accepted", "rejected", "ended"):
            answers.put(message["conn"], message)
        elif kind == "error":
            sys.exit(f"{message['code']}: {message['detail']}")


main()
