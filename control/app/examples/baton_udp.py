"""The control socket over UDP, with nothing but sockets and JSON: messages, each of which arrives once and in order, of
datagrams, which may be lost, repeated and reordered. The protocol is that of baton/control/app."""

import base64
import json
import os
import queue
import secrets
import socket
import struct
import sys
import threading
import time
import urllib.parse

MAX_DATAGRAM = 65000
PING = 1.0  # seconds; the shortest lease has three


class Datagrams:
    """A control socket at udp://ADDRESS:PORT/FILE, where FILE has the token. It is used like Control; no file can be sent,
    and a routing application gets its connections at a Unix socket that it opens."""

    def __init__(self, where):
        url = urllib.parse.urlsplit(where)
        with open(url.path) as f:
            self.token = f.read().strip()
        self.socket = socket.socket(socket.AF_INET6 if ":" in url.hostname else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((url.hostname, url.port))  # nobody else's datagrams are received
        self.session = secrets.token_hex(8)
        self.sending = threading.Lock()
        self.changed = threading.Condition()
        self.sent = self.acknowledged = self.taken = 0  # numbers of messages
        self.lease, self.heard, self.ended = 10.0, time.monotonic(), False
        self.messages = queue.SimpleQueue()
        self.listener, self.streams = None, {}
        threading.Thread(target=self.listen, daemon=True).start()
        threading.Thread(target=self.keep, daemon=True).start()

    def send(self, state=b"", **message):
        """Sends a message and returns when the daemon has it; before the first one, the daemon may still have to start."""
        if state:
            message["state"] = base64.b64encode(state).decode()
        if message.get("role") == "router":
            message["stream"] = self.meet()
        with self.sending, self.changed:
            self.sent += 1
            wait = 0.05
            while self.acknowledged < self.sent and not self.ended:
                self.post(number=self.sent, **message)
                self.changed.wait(wait)
                wait = min(2 * wait, 0.4)
            if self.ended:
                raise ConnectionError("the daemon is gone")

    def receive(self):
        """Returns the next message and its files, as Control does."""
        message = self.messages.get()
        if message is None:
            return None, {}
        message["state"] = base64.b64decode(message.get("state", ""))
        if message["type"] == "connection":
            return message, {"connection": self.stream(message["conn"])}
        return message, {}

    def post(self, **datagram):
        """Sends a datagram. An error is a loss."""
        try:
            self.socket.send(json.dumps({"token": self.token, "session": self.session, **datagram}).encode())
        except ConnectionRefusedError:
            pass

    def listen(self):
        """Takes the daemon's datagrams."""
        while not self.ended:
            try:
                datagram = json.loads(self.socket.recv(MAX_DATAGRAM))
            except ConnectionRefusedError:
                continue
            if datagram["session"] == self.session:
                self.take(datagram)

    def take(self, datagram):
        kind, number = datagram["type"], datagram.get("number", 0)
        with self.changed:
            self.heard = time.monotonic()
            if kind == "leave":
                self.end(datagram.get("detail", ""))
            elif kind == "ack":
                self.acknowledged = max(self.acknowledged, number)
                self.changed.notify_all()
            elif kind != "pong":
                if number == self.taken + 1:
                    self.taken = number
                    self.lease = datagram.get("lease", self.lease * 1000) / 1000
                    self.messages.put(datagram)
                if number <= self.taken:
                    self.post(type="ack", number=number)

    def keep(self):
        """Renews the lease, once the daemon knows the session."""
        while not self.ended:
            time.sleep(PING)
            with self.changed:
                if self.taken and time.monotonic() - self.heard > self.lease:
                    self.end("nothing was heard for the time of a lease")
                elif self.taken:
                    self.post(type="ping")

    def end(self, why):
        print("control socket ends:", why, file=sys.stderr, flush=True)
        self.ended = True
        self.messages.put(None)
        self.changed.notify_all()

    def meet(self):
        """Listens for connections, whose streams the daemon connects to it, and returns where: a name of Linux' abstract Unix
        sockets, which like UDP on loopback belong to the network namespace."""
        name = "baton-" + secrets.token_hex(16)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind("\0" + name)
        self.listener.listen(128)
        return "@" + name

    def stream(self, conn):
        """Returns the stream of a connection; it was connected before its message was sent."""
        while conn not in self.streams:
            stream, _ = self.listener.accept()
            _, uid, _ = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
            if uid not in (0, os.geteuid()):
                continue
            line = b""
            while not line.endswith(b"\n"):
                octet = stream.recv(1)  # and not more: the rest is the client's
                if not octet:
                    break
                line += octet
            else:
                self.streams[int(line.split()[1])] = stream.detach()
        return self.streams.pop(conn)
