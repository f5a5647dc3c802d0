"""The control socket between an application and the Baton daemon of its host: one JSON object per packet, and file
descriptors beside it. The protocol is that of baton/control/app."""

import array
import base64
import fcntl
import json
import os
import socket
import threading
import time

from baton_udp import Datagrams

MAX_MESSAGE = 64 << 10
MAX_INLINE = 32 << 10  # octets of state that go into the packet itself
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def connect(where):
    """Returns the control socket at a path, or at udp://ADDRESS:PORT/FILE with the token in FILE."""
    return Datagrams(where) if where.startswith("udp://") else Control(where)


class Control:
    """A control socket. send() may be called by several threads, receive() by one."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while True:  # the daemon may start after its applications
            try:
                self.socket.connect(path)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.05)

    def send(self, state=b"", connection=None, **message):
        """Sends a message. State that does not fit goes as a sealed memfd; connection is the file descriptor of one that is
        given away."""
        fds = array.array("i")
        if len(state) > MAX_INLINE:
            fds.append(sealed(state))
            message["files"] = ["state"]
        elif state:
            message["state"] = base64.b64encode(state).decode()
        made = list(fds)
        if connection is not None:
            fds.append(connection)
            message["files"] = message.get("files", []) + ["connection"]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
        try:
            self.socket.sendmsg([json.dumps(message).encode()], rights)
        finally:
            for fd in made:
                os.close(fd)

    def tell(self, to, tag, data, seq=0):
        """Sends data to another application: to is a dict with its host and its name, job, role or id. If nobody gets it,
        an "error" with to and seq comes."""
        self.send(type="message", to=to, tag=tag, data=base64.b64encode(data).decode(), seq=seq)

    def receive(self):
        """Returns the next message and the file descriptors that came with it, by their names; (None, {}) at the end.
        State and data are in the message, as octets."""
        data, ancillary, _, _ = self.socket.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(4 * 4))
        if not data:
            return None, {}
        fds = array.array("i")
        for level, kind, octets in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(octets[: len(octets) - len(octets) % fds.itemsize])
        message = json.loads(data)
        files = dict(zip(message.get("files", []), fds))
        for field in ("state", "data"):
            message[field] = base64.b64decode(message.get(field, ""))
        if "state" in files:
            with open(files.pop("state"), "rb") as f:
                f.seek(0)
                message["state"] = f.read()
        return message, files


def sealed(octets):
    """A memfd that nobody can change any more."""
    fd = os.memfd_create("baton-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as f:
        f.write(octets)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


class Answers:
    """Brings answers, which one thread receives, to the threads that wait for them."""

    def __init__(self):
        self.changed = threading.Condition()
        self.answers = {}

    def put(self, key, answer):
        with self.changed:
            self.answers[key] = answer
            self.changed.notify_all()

    def take(self, key, timeout=None):
        """Returns the answer; None if there was none in time."""
        with self.changed:
            self.changed.wait_for(lambda: key in self.answers, timeout)
            return self.answers.pop(key, None)


printing = threading.Lock()


def report(*words):
    """Prints a line, in one piece, whichever threads print at the same time."""
    with printing:
        print(*words, flush=True)
