"""The wire of the throughput and latency runs: two namespaces, one veth pair, one balancer at a time.

    peer: flood and sink (`viaduct generate flood`), in the kernel     core 1
      │ veth
    lb:   whoever is measured                                          core 0

What lb receives is carried to it by the core that sends (a veth has no interrupt of its own), for
every contestant alike; what lb sends is carried to the sink by core 0. Servers and clients exist as
neighbours only: three MAC addresses of servers, one of the clients' gateway.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/interop"))
sys.path.insert(0, str(ROOT / "scripts"))
import machine  # noqa: E402
from lab import METRICS_PORT, VIADUCT, Failure, Lab, check  # noqa: E402,F401

BALANCER_CORE, FLOOD_CORE = 0, 1
VIP = "198.18.0.1"
BALANCER_MAC = "02:00:00:00:00:01"
PEER_MAC = "02:00:00:00:00:02"
SERVERS = {f"02:00:00:00:01:{n:02x}": f"198.19.1.{10 + n}" for n in (1, 2, 3)}
CLIENTS_MAC, CLIENTS_GATEWAY, CLIENTS_NETWORK = "02:00:00:00:02:01", "198.19.2.1", "198.18.100.0/22"
# 1,000 addresses. 2^22 calls: four times as many as there are pins.
SOURCES = "198.18.100.0-198.18.103.231"
CALLS = 1 << 22


class WireLab(Lab):
    """The two namespaces; gone at the end of the block."""

    def __enter__(self):
        self.prefix = f"vb{os.getpid()}-"
        self.open_folder()
        try:
            for name in ("lb", "peer"):
                subprocess.run(["ip", "netns", "add", self.prefix + name], check=True)
                self.command(name, "ip", "link", "set", "lo", "up")
            self.command("lb", "ip", "link", "add", "eth0", "address", BALANCER_MAC, "type", "veth",
                         "peer", "name", "eth0", "address", PEER_MAC, "netns", self.prefix + "peer")
            self.command("lb", "ip", "address", "add", f"{VIP}/15", "dev", "eth0")
            for mac, address in [*SERVERS.items(), (CLIENTS_MAC, CLIENTS_GATEWAY)]:
                self.command("lb", "ip", "neighbor", "add", address, "lladdr", mac, "dev", "eth0", "nud", "permanent")
            # Frames that a program redirects to a veth arrive only where NAPI runs: with XDP, or GRO.
            self.command("lb", "ethtool", "-K", "eth0", "gro", "on")
            for name in ("lb", "peer"):
                self.command(name, "ip", "link", "set", "eth0", "up")
            self.command("lb", "ip", "route", "add", CLIENTS_NETWORK, "via", CLIENTS_GATEWAY)
            # What comes for an address that nobody has would be forwarded back or answered by ICMP.
            self.command("lb", "sysctl", "-qw", "net.ipv4.ip_forward=0")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self, command, log):
        """Starts a program in lb on its core, in front of what else the machine does."""
        with open(self.path / log, "wb") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.prefix + "lb", "taskset", "-c", str(BALANCER_CORE), *map(str, command)],
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.path,
                env={**os.environ, "LIBXDP_SKIP_DISPATCHER": "1"}, preexec_fn=machine.go_first)
        self.processes.append(process)
        return process

    def wait_for(self, ready, process, log):
        """Waits until `ready()`, which may raise OSError."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            check(process.poll() is None, f"it has ended:\n{self.log(log)}")
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(0.03)
        raise Failure(f"not ready after 20 s:\n{self.log(log)}")

    def has_xdp(self):
        """Whether a program is attached to lb's interface."""
        return "xdp" in json.loads(self.command("lb", "ip", "-j", "link", "show", "eth0"))[0]

    def flood(self, *options, seconds, warm_up=0.5, rate=None):
        """Sends a flood to the balancer; the generator's report."""
        report = self.path / "flood.json"
        report.unlink(missing_ok=True)
        command = [
            "ip", "netns", "exec", self.prefix + "peer", VIADUCT, "generate", "flood", "--interface", "eth0",
            "--target", f"{VIP}:5060", "--target-mac", BALANCER_MAC, "--source", SOURCES, "--calls", CALLS,
            "--core", FLOOD_CORE, "--duration", seconds, "--warm-up", warm_up, "--json", report, *options,
            *([] if rate is None else ["--rate", rate])]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False,
                              preexec_fn=machine.go_first)
        check(done.returncode == 0, f"the flood failed:\n{done.stdout}{done.stderr}")
        return json.loads(report.read_text())


def family(process):
    """Ids of a process and all below it."""
    found = [process]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                pass
    return found


def run_time(process):
    """Seconds that a process, its threads and its children have run, the kernel's work for them included."""
    nanoseconds = 0
    for member in family(process):
        for task in pathlib.Path(f"/proc/{member}/task").glob("*/schedstat"):
            try:
                nanoseconds += int(task.read_text().split()[0])
            except OSError:
                pass
    return nanoseconds / 1e9
