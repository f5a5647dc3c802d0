#!/usr/bin/python3
"""A target application: a POP3 server that leaves greeting and authentication to a routing application. It is offered
each connection with the user as its state, takes those whose mailbox it has, and goes on after PASS.

Usage: pop3_target.py SOCKET JOB PORT NAME [USER=WORD]...

SOCKET is the control socket of the host's daemon, a path or udp://ADDRESS:PORT/FILE with the token in FILE. By WORD a user's mailbox is "here", "locked" (the connection is rejected),
"late" (it is accepted after half a second) or "slow" (nothing is said at all); that of other users is here. A connection that
no offer came before, because the job of PORT is conventional, is nobody's.
"""

import hashlib
import json
import socket
import sys
import threading

from baton_app import Answers, connect, report


def decide(control, offer, words, states):
    """Answers an offer. The state is put where the connection looks for it, by its client's address and port."""
    transfer = offer["transfer"]
    user = json.loads(offer["state"] or b"{}").get("user", "")
    word = words.get(user, "here")
    report("offer", offer["client"], user, len(offer["state"]), "octets from", offer["from"].get("name", ""))
    if word == "slow":
        return
    if word == "locked":
        control.send(type="reject", transfer=transfer, detail=f"the mailbox of {user} is locked")
        return
    states.put(offer["client"], offer["state"])
    accept = lambda: control.send(type="accept", transfer=transfer)
    if word == "late":
        threading.Timer(0.5, accept).start()
    else:
        accept()


def serve(connection, client, name, states):
    with connection:
        octets = states.take(client, timeout=1) or b"{}"
        user = json.loads(octets).get("user", "nobody")
        reply = lambda text: connection.sendall(text.encode() + b"\r\n")
        reply(f"+OK {name} has the mailbox of {user}")
        with connection.makefile("rb") as lines:
            for line in lines:
                verb = line.decode("latin-1").strip().upper()
                if verb == "STAT":
                    reply("+OK 0 0")
                elif verb == "XSTATE":
                    reply(f"+OK {len(octets)} {hashlib.sha256(octets).hexdigest()}")
                elif verb == "QUIT":
                    reply("+OK bye")
                    return
                else:
                    reply("-ERR what?")


def listen(port, name, states):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(128)

    def accept():
        while True:
            connection, (address, client_port) = listener.accept()
            arguments = (connection, f"{address}:{client_port}", name, states)
            threading.Thread(target=serve, args=arguments, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def main():
    path, job, port, name, *arguments = sys.argv[1:]
    words = dict(argument.split("=") for argument in arguments)
    states = Answers()
    listen(int(port), name, states)
    control = connect(path)
    control.send(type="register", role="target", job=job, name="pop3d")
    while True:
        message, _ = control.receive()
        if message is None:
            sys.exit("the daemon is gone")
        kind = message["type"]
        if kind == "registered":
            report("registered", message["service"])
        elif kind == "offer":
            decide(control, message, words, states)
        elif kind == "arrived":
            report("arrived", message["client"])
            if message["state"]:  # of a connection that was assigned, without an offer
                states.put(message["client"], message["state"])
        elif kind == "canceled":
            report("canceled", message["client"])
            states.take(message["client"], timeout=0)
        elif kind == "error":
            sys.exit(f"{message['code']}: {message['detail']}")


main()
