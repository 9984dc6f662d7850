"""baresip in a namespace, driven over its control socket: a real user agent with a stack of its own."""

import json
import select
import socket
import time

from lab import Failure, check

PORT = 4444
CONFIG = """sip_listen {host}:5060
sip_trans_def udp
audio_player aubridge,x
audio_source aubridge,x
audio_alert aubridge,x
rtp_ports 10000-11000
call_max_calls 20
ctrl_tcp_listen 127.0.0.1:{port}
module_path /usr/lib/baresip/modules
module g711.so
module aubridge.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
"""


class Phone:
    """One baresip with one account."""

    def __init__(self, lab, namespace, ip, account):
        self.lab, self.namespace, self.ip = lab, namespace, ip
        folder = lab.path / f"phone-{namespace}"
        folder.mkdir(exist_ok=True)
        (folder / "config").write_text(CONFIG.format(host=lab.bracket(ip), port=PORT))
        (folder / "accounts").write_text(account + "\n")
        (folder / "contacts").write_text("")
        self.file = lab.path / f"phone-{namespace}.log"
        # A phone that was here before has written into the same file.
        self.since = self.file.stat().st_size if self.file.exists() else 0
        self.process = lab.popen(namespace, ["baresip", "-f", folder, "-6" if ":" in ip else "-4", "-s", "-n", "eth0"],
                                 f"phone-{namespace}.log")
        self.data, self.events = b"", []
        begin = time.monotonic()
        while True:
            check(self.process.poll() is None and time.monotonic() - begin < 10, f"no phone: {self.log()}")
            try:
                self.socket = lab.inside(namespace, self._connect)
                return
            except OSError:
                time.sleep(0.1)

    @staticmethod
    def _connect():
        return socket.create_connection(("127.0.0.1", PORT), 2)

    def said(self):
        return self.file.read_bytes()[self.since:].decode(errors="replace")

    def log(self):
        return "\n".join(self.said().splitlines()[-60:])

    def close(self):
        self.socket.close()
        self.lab.end(self.process)

    def command(self, name, parameters=""):
        """Sends a command; its answer must be ok."""
        text = json.dumps({"command": name, "params": parameters, "token": name})
        self.socket.sendall(f"{len(text)}:{text},".encode())
        answer = self._next(lambda event: event.get("response") and event.get("token") == name, f"answer to {name}", 5)
        check(answer["ok"], f"{name} {parameters}: {answer}")

    def registered(self, seconds=6):
        """Waits for its registration, which may be older than the control connection."""
        end = time.monotonic() + seconds
        while "1 binding]" not in self.said():
            check(time.monotonic() < end, f"{self.namespace} is not registered:\n{self.log()}")
            time.sleep(0.05)

    def wait(self, kind, seconds=6):
        """Waits for an event of a type; earlier ones of other types are kept."""
        return self._next(lambda event: event.get("type") == kind, kind, seconds)

    def never(self, kind, seconds=0.5):
        try:
            event = self.wait(kind, seconds)
        except Failure:
            return
        raise Failure(f"{kind} at {self.namespace}: {event}")

    def _next(self, wanted, what, seconds):
        end = time.monotonic() + seconds
        while True:
            for event in self.events:
                if wanted(event):
                    self.events.remove(event)
                    return event
            ready, _, _ = select.select([self.socket], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise Failure(f"no {what} at {self.namespace}, but {[event.get('type') for event in self.events]}\n{self.log()}")
            got = self.socket.recv(65536)
            check(got, f"the phone {self.namespace} has ended:\n{self.log()}")
            self.data += got
            while b":" in self.data:
                length, rest = self.data.split(b":", 1)
                if len(rest) <= int(length):
                    break
                self.events.append(json.loads(rest[:int(length)]))
                self.data = rest[int(length) + 1:]
