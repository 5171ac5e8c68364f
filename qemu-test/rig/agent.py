# SPDX-License-Identifier: GPL-2.0
"""The outside end of the channel to the agent in the host (host/init is the inside end)."""

import base64
import json
import threading
from dataclasses import dataclass

SLACK = 60  # seconds an answer may be late beyond the time the command itself was given


class HostLost(Exception):
    """The host went away although nobody wanted it to."""


@dataclass
class Result:
    command: str
    status: int
    stdout: str
    stderr: str
    late: bool

    def __str__(self):
        what = "took too long" if self.late else f"status {self.status}"
        return f"`{self.command}`: {what}\n{self.stdout}{self.stderr}".rstrip()


class Agent:
    def __init__(self, machine):
        self.machine = machine
        self.socket = machine.agent
        self.answers = {}
        self.hellos = []
        self.last_id = 0
        self.closed = False
        self.changed = threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        pending = b""
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except OSError:
                data = b""
            with self.changed:
                if not data:
                    self.closed = True
                    self.changed.notify_all()
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    try:
                        message = json.loads(line)
                    except ValueError:
                        continue  # the rest of a line that a dying agent began
                    if "hello" in message:
                        self.hellos.append(message)
                    else:
                        self.answers[message["id"]] = message
                self.changed.notify_all()

    def wait_hello(self, count, timeout):
        """Waits until the agent has greeted COUNT times (a kexec makes it greet again)."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.hellos) >= count or self.closed, timeout)
            if len(self.hellos) < count:
                raise HostLost("the host did not come up" + (": its machine is off" if self.closed else " in time"))
            return self.hellos[count - 1]

    def post(self, what, **arguments):
        with self.changed:
            self.last_id += 1
            request = {"id": self.last_id, "do": what, **arguments}
            try:
                self.socket.sendall(json.dumps(request).encode() + b"\n")
            except OSError as error:
                raise HostLost(f"no way to the host: {error}") from None
            return self.last_id

    def ask(self, what, limit=10, **arguments):
        """Has the agent do something and returns its result; LIMIT is how long it may take."""
        number = self.post(what, **arguments)
        with self.changed:
            self.changed.wait_for(lambda: number in self.answers or self.closed, limit + SLACK)
            answer = self.answers.pop(number, None)
        if answer is None:
            raise HostLost(f"the host went away during `{what}`" if self.closed else f"the host does not answer `{what}`")
        if "error" in answer:
            raise RuntimeError(f"{what}: {answer['error']}")
        return answer["result"]

    def run(self, command, timeout=30, stdin="", uid=0, env=None):
        """Runs a command (a string is given to the shell) in the host."""
        argv = ["sh", "-c", command] if isinstance(command, str) else [str(part) for part in command]
        text = command if isinstance(command, str) else " ".join(argv)
        answer = self.ask("run", timeout, argv=argv, timeout=timeout, stdin=stdin, uid=uid, env=env)
        return Result(text, **answer)

    def read(self, path, offset=0, size=1 << 20):
        return base64.b64decode(self.ask("read", path=path, offset=offset, size=size))

    def write(self, path, data, mode=0o644):
        self.ask("write", path=path, data=base64.b64encode(data).decode(), mode=mode)
