"""The lab for the interop runs: namespaces, viaduct inside, sockets and processes in them.

Everything made here is removed at the end of the `with` block, also on an exception or Ctrl-C.
"""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import metrics_page  # noqa: E402

# A binary that is already built, for instance a debug build; else the release build of this tree.
VIADUCT = pathlib.Path(os.environ.get("VIADUCT_BINARY", ROOT / "target/release/viaduct"))
METRICS_PORT = 19464
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


class Failure(Exception):
    """A check that did not hold."""


def check(condition, text):
    """A check of a run: raises with what was expected."""
    if not condition:
        raise Failure(text)


def build():
    """Builds the release binary, quietly, unless VIADUCT_BINARY names one."""
    if "VIADUCT_BINARY" in os.environ:
        return
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)


class Lab:
    """Namespaces `client`, `lb`, `server1..n`, and one viaduct in `lb`.

    With `stateful` INVITE has a transaction; without it every method passes stateless.
    """

    stateful = False

    def __init__(self, family=4, arms=1, servers=3, queues=1, mode="native", extra="", workers=None):
        self.family, self.arms, self.count = family, arms, servers
        self.queues, self.mode, self.extra, self.workers = queues, mode, extra, workers
        self.prefix = f"vi{os.getpid()}-"
        self.processes = []
        self.viaduct = None
        # Namespaces in which a viaduct runs, and their arms.
        self.balancers = {"lb": arms}

    # ---- addresses -----------------------------------------------------------------------------

    @property
    def vip(self):
        return "198.18.0.1" if self.family == 4 else "2001:db8::1"

    @property
    def farm_address(self):
        """The balancer's address that servers see: the VIP with one arm."""
        if self.arms == 1:
            return self.vip
        return "198.19.0.1" if self.family == 4 else "2001:db8:1::1"

    def server(self, n):
        if self.family == 4:
            return f"198.1{8 if self.arms == 1 else 9}.1.{10 + n}"
        return f"2001:db8{'::1' if self.arms == 1 else ':1::1'}:{n}"

    @property
    def client(self):
        return "198.18.0.100" if self.family == 4 else "2001:db8::100"

    @staticmethod
    def bracket(address):
        return f"[{address}]" if ":" in address else address

    def uri(self, user="service"):
        return f"sip:{user}@{self.bracket(self.vip)}:5060"

    # ---- life ----------------------------------------------------------------------------------

    def open_folder(self):
        self.folder = tempfile.TemporaryDirectory(prefix="viaduct-")
        self.path = pathlib.Path(self.folder.name)

    def __enter__(self):
        self.open_folder()
        try:
            subprocess.run([ROOT / "scripts/lab", "up", self.prefix, "--arms", str(self.arms),
                            "--servers", str(self.count), "--queues", str(self.queues)], check=True)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def add(self, name, bridge, *addresses):
        """Joins a namespace, made if it is new, to a bridge by one more interface."""
        subprocess.run([ROOT / "scripts/lab", "add", self.prefix, name, bridge, *addresses], check=True)

    def command(self, namespace, *words, seconds=10):
        """Runs a command that must succeed in a namespace; returns what it prints."""
        code, output = self.run(namespace, words, seconds)
        check(code == 0, f"{' '.join(map(str, words))} in {namespace}: exit {code}: {output}")
        return output

    def mac(self, namespace, interface="eth0"):
        return self.command(namespace, "cat", f"/sys/class/net/{interface}/address").strip()

    def __exit__(self, *_):
        for process in reversed(self.processes):
            self.end(process)
        subprocess.run([ROOT / "scripts/lab", "down", self.prefix], check=False)
        self.folder.cleanup()

    @staticmethod
    def end(process, how=signal.SIGTERM, seconds=10):
        """Ends a process of ours and waits for it."""
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def popen(self, namespace, command, log):
        """Starts a command in a namespace; its output goes to a file of that name."""
        output = open(self.path / log, "ab")
        process = subprocess.Popen(["ip", "netns", "exec", self.prefix + namespace, *map(str, command)],
                                   stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   cwd=self.path)
        output.close()
        self.processes.append(process)
        return process

    def run(self, namespace, command, seconds):
        """Runs a command in a namespace to its end; returns (exit code, output)."""
        command = ["ip", "netns", "exec", self.prefix + namespace, *map(str, command)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              stdin=subprocess.DEVNULL, timeout=seconds, cwd=self.path, errors="replace")
        return done.returncode, done.stdout

    def inside(self, namespace, call):
        """Calls a function with this thread in the namespace; sockets made there stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.prefix}{namespace}", os.O_RDONLY)
        try:
            if _libc.setns(there, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                return call()
            finally:
                if _libc.setns(home, _CLONE_NEWNET) != 0:
                    os._exit(70)  # a thread lost in another namespace must not go on
        finally:
            os.close(home)
            os.close(there)

    def socket(self, namespace, address, port):
        """A UDP socket in a namespace."""
        def make():
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            made.settimeout(2)
            return made
        return self.inside(namespace, make)

    # ---- viaduct -------------------------------------------------------------------------------

    def config(self, servers=None, listeners_extra="", pool_extra=""):
        """A configuration for this lab; `servers` = names of the members, all by default."""
        names = servers if servers is not None else [f"server{n}" for n in range(1, self.count + 1)]
        lines = ["[secret]", f'file = "{self.path}/secret"', "[datapath]", f'mode = "{self.mode}"',
                 "[metrics]", f'address = "127.0.0.1:{METRICS_PORT}"']
        if self.workers:
            lines += ["[workers]", f"count = {self.workers}"]
        methods = ['stateful = ["INVITE"]' if self.stateful else "stateful = []"]
        lines += ["[[listeners]]", 'name = "clients"', f'address = "{self.bracket(self.vip)}:5060"', *methods, listeners_extra]
        if self.arms == 2:
            lines += ["[[listeners]]", 'name = "farm"', 'side = "farm"', *methods,
                      f'address = "{self.bracket(self.farm_address)}:5060"']
        lines += ["[[pools]]", 'name = "farm"', pool_extra]
        for name in names:
            address = self.server(int(name.removeprefix("server")))
            lines += ["[[pools.servers]]", f'name = "{name}"', f'address = "{self.bracket(address)}:5060"']
        return "\n".join(lines) + "\n" + self.extra

    def start_viaduct(self, text=None):
        """Starts viaduct and waits until it serves; returns the seconds that took."""
        begin = time.monotonic()
        self.viaduct = self.serve("lb", text or self.config(), "viaduct")
        return time.monotonic() - begin

    def serve(self, namespace, text, name):
        """Starts one more viaduct in a namespace and waits until it serves; returns its process."""
        file = self.path / f"{name}.toml"
        file.write_text(text)
        begin = time.monotonic()
        process = self.popen(namespace, [VIADUCT, "run", "--config", file], f"{name}.log")
        while time.monotonic() - begin < 15:
            if process.poll() is not None:
                break
            try:
                self.metrics(namespace)
                return process
            except OSError:
                time.sleep(0.02)
        raise Failure(f"viaduct did not start:\n{self.log(f'{name}.log')}")

    def reload(self, text):
        """Writes a new configuration, sends SIGHUP and waits until it counts."""
        before = self.total("configuration_version")
        (self.path / "viaduct.toml").write_text(text)
        self.viaduct.send_signal(signal.SIGHUP)
        begin = time.monotonic()
        while time.monotonic() - begin < 5:
            if self.total("configuration_version") > before:
                time.sleep(0.05)  # workers pick the snapshot up between batches
                return
            time.sleep(0.02)
        raise Failure(f"the reload did not happen:\n{self.log('viaduct.log')}")

    def metrics(self, namespace="lb"):
        """[(name, labels, value)] of the metrics page."""
        def fetch():
            url = f"http://127.0.0.1:{METRICS_PORT}/metrics"
            with urllib.request.urlopen(url, timeout=5) as page:
                return page.read().decode()
        return metrics_page.samples(self.inside(namespace, fetch))

    def total(self, name, namespace="lb", **labels):
        """Sum of a metric over all labels but those given."""
        return metrics_page.total(self.metrics(namespace), name, **labels)

    def log(self, name, lines=40):
        try:
            return "\n".join((self.path / name).read_text(errors="replace").splitlines()[-lines:])
        except OSError as error:
            return str(error)

    def conserved(self):
        """Every packet that came in or was made here went out or was counted as dropped or absorbed;
        returns (in, out, drops)."""
        for _ in range(20):
            page = self.metrics()
            received, made, sent, absorbed, drops = (
                sum(metrics_page.total(page, f"{name}_total") for name in names) for names in (
                    ("xdp_in", "kernel_in"), ("originated",), ("xdp_out", "kernel_out"), ("absorbed",), ("drops",)))
            if received + made == sent + absorbed + drops:
                return received, sent, drops
            time.sleep(0.1)
        raise Failure(f"packets in {received} + made {made} != packets out {sent} + absorbed {absorbed} + drops {drops}")

    def peers_losses(self):
        """Datagrams that sockets of the peers had no room for: theirs to lose, not ours."""
        def read():
            counters = {}
            for file in ("/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6"):
                lines = pathlib.Path(file).read_text().splitlines()
                for line in lines:
                    name, _, value = line.partition("\t")
                    if name.strip() == "Udp6RcvbufErrors":
                        counters["udp6"] = int(value)
                udp = [line.split() for line in lines if line.startswith("Udp:")]
                if len(udp) == 2:
                    counters["udp"] = int(dict(zip(*udp))["RcvbufErrors"])
            return sum(counters.values())
        peers = ["client"] + [f"server{n}" for n in range(1, self.count + 1)]
        return {peer: lost for peer in peers if (lost := self.inside(peer, read))}

    def device_losses(self):
        """What the kernel did not get through its rings: counted beside the drops."""
        names = ("xsk_", "tx_device_drops", "kernel_leak")
        return {name: int(value) for name, _, value in self.metrics() if name.startswith(names) and value}

    def drops(self):
        return metrics_page.by_label(self.metrics(), "drops_total", "reason")


def main(runs):
    """Runs the named checks (all by default) and prints one line each."""
    # A `with` block does not end on SIGTERM by itself; an exception ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = sys.argv[1:] or list(runs)
    failed = 0
    for name in names:
        # A stall of a shared machine fails a run of real time; a second try tells it from a fault,
        # and the first is printed all the same.
        for attempt in (1, 2):
            begin = time.monotonic()
            try:
                text = runs[name]() or ""
            except (Failure, subprocess.TimeoutExpired, OSError) as error:
                seconds = time.monotonic() - begin
                print(f"  {'AGAIN' if attempt == 1 else 'FAIL'} {name} ({seconds:.1f} s): {error}", flush=True)
                failed += attempt == 2
            else:
                print(f"  PASS {name} ({time.monotonic() - begin:.1f} s) {text}", flush=True)
                break
    print(f"{len(names) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0
