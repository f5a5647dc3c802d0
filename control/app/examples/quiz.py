#!/usr/bin/python3
"""An application that is routing and target application in one: whoever has a connection answers its lines, and hands it
on when the client asks for that. How many lines were answered so far goes with it as application state.

Usage: quiz.py SOCKET SERVICE NAME      as a routing application for SERVICE, as in 10.77.0.10:80
       quiz.py SOCKET JOB PORT NAME     as a target application for JOB, listening on PORT

SOCKET is the control socket of the host's daemon. The client's lines:

GO JOB [HOST]   hand the connection on to JOB (on HOST); to "-": back to the routing application
LOOP JOB        the same without reading the line, so that the next one does it again
FILL N          answer with N octets
TELL HOST TEXT  ask the quiz at HOST, and say what it answers
FLOOD HOST      write to the quiz at HOST, and go on doing so until
CALM            which also waits until one of these messages has come back
QUIT            answer and close
anything else   is repeated, after the name and the number of the answer
"""

import json
import socket
import sys
import threading

from baton_app import Answers, Control, report


def peek(connection):
    """Looks at the next line; empty at the end."""
    seen = b""
    while b"\n" not in seen:
        more = connection.recv(1024, socket.MSG_PEEK)
        if not more:
            return b""
        if len(more) == len(seen):
            threading.Event().wait(0.001)
        seen = more
    return seen[: seen.index(b"\n") + 1]


class Post:
    """Writes to the applications of other hosts, and answers what they ask."""

    FLOOD = 32 << 10  # octets

    def __init__(self, control, name):
        self.control, self.name, self.answers = control, name, Answers()
        self.numbers, self.calm, self.returned = iter(range(1, 1 << 30)), threading.Event(), threading.Event()

    def ask(self, host, text):
        number = next(self.numbers)
        self.control.tell({"host": host, "name": "quiz"}, f"ask {number}", text.encode(), number)
        return self.answers.take(number, timeout=30) or "-ERR no answer"  # silence says nothing

    def flood(self, host):
        while not self.calm.is_set():
            self.control.tell({"host": host, "name": "quiz"}, "flood", b"x" * self.FLOOD)

    def hear(self, message):
        """Returns whether the message was about those between applications."""
        if message["type"] == "error" and "to" in message:
            if message.get("seq"):
                self.answers.put(message["seq"], f"-ERR {message['code']}")
            else:  # of the flood
                self.returned.set()
            return True
        if message["type"] != "message":
            return False
        word, _, number = message["tag"].partition(" ")
        sender, text = message["from"], message["data"].decode()
        if word == "ask":
            report("asked by", sender["role"], sender["host"], sender["name"], text)
            self.control.tell(sender, f"answer {number}", f"{self.name} heard {text}".encode())
        elif word == "answer":
            self.answers.put(int(number), f"+OK {text}")
        return True


class Player:
    """Answers one connection. give(job, host, state) hands it on and returns the daemon's answer."""

    def __init__(self, name, connection, state, give, post):
        self.name, self.connection, self.give, self.post = name, connection, give, post
        self.answered = json.loads(state or b"{}").get("answered", 0)

    def say(self, text):
        self.connection.sendall(text.encode() + b"\r\n")

    def hand_on(self, job, host=""):
        """Returns whether somebody else has the connection now."""
        state = json.dumps({"answered": self.answered}).encode()
        answer = self.give("" if job == "-" else job, host, state)
        report("gave", job, host, answer["type"], answer.get("code", ""), answer.get("detail", ""))
        if answer["type"] != "rejected":
            return True
        self.say(f"-ERR {answer['code']}: {answer.get('detail', '')}")
        return False

    def play(self):
        with self.connection:
            while True:
                line = peek(self.connection)
                word, *rest = line.decode("latin-1").split() or [""]
                if word == "LOOP" and self.give_peeked(rest[0]):
                    return
                self.connection.recv(len(line))
                if not line or word == "QUIT":
                    if line:
                        self.say("bye")
                    return
                if word == "GO":
                    if self.hand_on(*rest):
                        return
                elif word == "FILL":
                    self.say("x" * int(rest[0]))
                elif word == "TELL":
                    self.say(self.post.ask(rest[0], " ".join(rest[1:])))
                elif word == "FLOOD":
                    threading.Thread(target=self.post.flood, args=rest, daemon=True).start()
                    self.say("+OK")
                elif word == "CALM":
                    self.post.calm.set()
                    self.post.returned.wait()
                    self.say("+OK")
                elif word != "LOOP":
                    self.answered += 1
                    self.say(f"{self.name} {self.answered} {line.decode('latin-1').strip()}")

    def give_peeked(self, job):
        state = json.dumps({"answered": self.answered}).encode()
        answer = self.give(job, "", state)
        report("gave", job, answer["type"], answer.get("code", ""), answer.get("detail", ""))
        if answer["type"] != "rejected":
            return True
        self.say(f"-ERR {answer['code']}")
        return False


def as_router(control, service, name):
    answers, post = Answers(), Post(control, name)
    control.send(type="register", role="router", service=service, name="quiz")
    while True:
        message, files = control.receive()
        if message is None:
            sys.exit("the daemon is gone")
        if post.hear(message):
            continue
        if message["type"] == "registered":
            report("registered", message["host"])
        elif message["type"] == "connection":
            giver = message.get("from", {})
            report("connection", message["client"], "from", giver.get("host", ""), giver.get("name", ""))
            conn = message["conn"]

            def give(job, host, state, conn=conn):
                control.send(type="transfer", conn=conn, job=job, host=host, state=state, when="quiescent")
                return answers.take(conn)

            connection = socket.socket(fileno=files["connection"])
            player = Player(name, connection, message["state"], give, post)
            threading.Thread(target=player.play, daemon=True).start()
        elif message["type"] in ("accepted", "rejected", "ended"):
            answers.put(message["conn"], message)
        elif message["type"] == "error":
            sys.exit(f"{message['code']}: {message['detail']}")


def as_target(control, job, port, name):
    states, answers, numbers, post = Answers(), Answers(), iter(range(1, 1 << 30)), Post(control, name)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(128)

    def serve(connection, client):
        def give(job, host, state):
            seq = next(numbers)
            control.send(type="give", seq=seq, job=job, host=host, state=state, connection=connection.fileno())
            return answers.take(seq)

        Player(name, connection, states.take(client, timeout=2), give, post).play()

    def accept():
        while True:
            connection, (address, client_port) = listener.accept()
            threading.Thread(target=serve, args=(connection, f"{address}:{client_port}"), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    control.send(type="register", role="target", job=job, name="quiz")
    while True:
        message, _ = control.receive()
        if message is None:
            sys.exit("the daemon is gone")
        if post.hear(message):
            continue
        kind = message["type"]
        if kind == "registered":
            report("registered", message["service"])
        elif kind == "offer":
            giver = message["from"]
            report("offer", message["client"], "from", giver["host"], giver.get("name", ""))
            states.put(message["client"], message["state"])
            control.send(type="accept", transfer=message["transfer"])
        elif message.get("seq"):
            answers.put(message["seq"], message)
        elif kind == "canceled":
            states.take(message["client"], timeout=0)
        elif kind == "error":
            sys.exit(f"{message['code']}: {message['detail']}")


def main():
    path, *arguments = sys.argv[1:]
    control = Control(path)
    if len(arguments) == 2:
        as_router(control, *arguments)
    else:
        job, port, name = arguments
        as_target(control, job, int(port), name)


main()
