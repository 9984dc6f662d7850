"""Several workers behind one address and port: how XDP spreads them, and what that costs.

    peer: `viaduct generate flood`, one source address and port      last core
      │ veth, one queue
    lb:   `viaduct run` with one worker or several                   cores 0, 1, …

usage: scripts/bench cores [--quick] [--cores N] [--seconds S] [--pairs N] [--json FILE] [--require]

  split     10^6 Call-IDs at a rate below capacity, two workers: each one's share, hand-overs, drops
  idle      all load on the worker that does not own the queue's rings, the owner asleep: drops
  one core  both workers on core 0 against one worker there, under more than they can take
  scaling   with --cores N: 1, 2, 4 … N workers on cores of their own, the flood on the cores behind
            them (a machine with fewer than N + 1 cores is refused)

Sent is counted by the generator, received and dropped by viaduct's metrics page. On a veth pair the
XDP program runs on the core that sends.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import machine  # noqa: E402
import metrics_page  # noqa: E402

VIADUCT = ROOT / "target/release/viaduct"
METRICS_PORT = 19465
VIP, SOURCE, SERVER = "198.18.0.1", "198.18.100.1", "198.19.1.11"
BALANCER_MAC, SERVER_MAC = "02:00:00:00:00:01", "02:00:00:00:01:01"
CALLS = 1 << 20

CONFIG = """
[secret]
hex = "{secret}"
[workers]
count = {count}
[datapath]
mode = "native"
[metrics]
address = "127.0.0.1:{port}"
[[listeners]]
name = "clients"
address = "{vip}:5060"
stateful = []
[[pools]]
name = "farm"
[[pools.servers]]
name = "server"
address = "{server}:5060"
"""


class Failure(Exception):
    """A run that could not be made."""


class Lab:
    """Two namespaces and one veth pair; gone at the end of the block."""

    def __init__(self):
        self.prefix = f"vk{os.getpid()}-"
        self.folder = tempfile.TemporaryDirectory(prefix="viaduct-cores-")
        self.path = pathlib.Path(self.folder.name)
        self.balancer = None

    def __enter__(self):
        try:
            for name in ("lb", "peer"):
                self.ip("netns", "add", self.prefix + name)
                self.ip("-n", self.prefix + name, "link", "set", "lo", "up")
            lb, peer = self.prefix + "lb", self.prefix + "peer"
            self.ip("-n", lb, "link", "add", "eth0", "address", BALANCER_MAC, "type", "veth",
                    "peer", "name", "eth0", "netns", peer)
            self.ip("-n", lb, "address", "add", f"{VIP}/15", "dev", "eth0")
            self.ip("-n", lb, "neighbor", "add", SERVER, "lladdr", SERVER_MAC, "dev", "eth0",
                    "nud", "permanent")
            for name in (lb, peer):
                self.ip("-n", name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        for name in ("lb", "peer"):
            subprocess.run(["ip", "netns", "delete", self.prefix + name],
                           stderr=subprocess.DEVNULL, check=False)
        self.folder.cleanup()

    @staticmethod
    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True)

    def command(self, namespace, *arguments):
        return ["ip", "netns", "exec", self.prefix + namespace, *map(str, arguments)]

    def start(self, count, cores):
        """Starts the balancer with `count` workers, which take turns on `cores`."""
        config = self.path / "viaduct.toml"
        config.write_text(CONFIG.format(
            secret=hashlib.sha256(b"cores").hexdigest(), count=count, vip=VIP, port=METRICS_PORT,
            server=SERVER))
        log = self.path / "log"
        with open(log, "wb") as output:
            self.balancer = subprocess.Popen(
                self.command("lb", "taskset", "-c", ",".join(map(str, cores)),
                             VIADUCT, "run", "--config", config),
                stdout=output, stderr=subprocess.STDOUT, preexec_fn=machine.go_first)
        until = time.monotonic() + 20
        show = ["ip", "-j", "-n", self.prefix + "lb", "link", "show", "eth0"]
        while "xdp" not in json.loads(subprocess.check_output(show))[0] or not self.page():
            if self.balancer.poll() is not None or time.monotonic() > until:
                raise Failure(f"viaduct did not come up:\n{log.read_text()}")
            time.sleep(0.05)

    def stop(self):
        if self.balancer and self.balancer.poll() is None:
            self.balancer.send_signal(signal.SIGTERM)
            try:
                self.balancer.wait(10)
            except subprocess.TimeoutExpired:
                self.balancer.kill()
                self.balancer.wait()
        self.balancer = None

    def page(self):
        text = subprocess.run(
            self.command("lb", "curl", "-sf", "--max-time", "5",
                         f"http://127.0.0.1:{METRICS_PORT}/metrics"),
            capture_output=True, text=True, check=False).stdout
        return metrics_page.samples(text)

    def flood(self, seconds, core, rate=None, calls=CALLS, warm_up=0):
        """Sends; the generator's report."""
        report = self.path / f"flood{core}.json"
        options = ["--rate", rate] if rate else []
        result = subprocess.run(
            self.command("peer", VIADUCT, "generate", "flood", "--interface", "eth0", "--target",
                         f"{VIP}:5060", "--target-mac", BALANCER_MAC, "--source", SOURCE,
                         "--calls", calls, "--core", core, "--count-at", SERVER_MAC,
                         "--duration", seconds, "--warm-up", warm_up, "--json", report, *options),
            capture_output=True, text=True, timeout=300, check=False,
            preexec_fn=machine.go_first)
        if result.returncode != 0:
            raise Failure(f"the flood failed:\n{result.stdout}{result.stderr}")
        return json.loads(report.read_text())


def counted(page, workers):
    """What a run is judged by."""
    drops = metrics_page.by_label(page, "drops_total", "reason")
    rings = {name: metrics_page.total(page, name + "_total") for name in
             ("xsk_rx_dropped", "xsk_rx_ring_full", "xsk_fill_ring_empty", "tx_device_drops",
              "hand_over_out")}
    return {
        "in": [metrics_page.total(page, "xdp_in_total", worker=str(n)) for n in range(workers)],
        "steered": metrics_page.by_label(page, "steered_total", "by"),
        "drops": {**drops, **{name: value for name, value in rings.items() if value}},
    }


def settled(lab, workers):
    """The counts once nothing is on its way; the kernel's are copied once a second."""
    time.sleep(1.5)
    return counted(lab.page(), workers)


def split(lab, seconds, rate):
    """10^6 Call-IDs of one flow over two workers."""
    lab.start(2, [0, 1])
    report = lab.flood(max(seconds, CALLS / rate), core=1, rate=rate)
    counts = settled(lab, 2)
    lab.stop()
    share = counts["in"][0] / max(sum(counts["in"]), 1)
    result = {"rate": rate, "sent": report["sent"], "first_share": round(share, 4), **counts}
    result["holds"] = (abs(share - 0.5) <= 0.01 and not counts["drops"]
                       and sum(counts["in"]) == report["sent"])
    print(f"  split     {report['sent']:,} messages of one flow: {100 * share:.2f} % and"
          f" {100 - 100 * share:.2f} %, steered {counts['steered']},"
          f" dropped or handed over: {counts['drops'] or 'none'}")
    return result


def idle(lab, seconds, rate):
    """One Call-ID, whose home is the worker that does not own the rings."""
    # Each run of the generator has Call-IDs of its own: the home is a coin toss.
    for _ in range(10):
        lab.start(2, [0, 1])
        report = lab.flood(seconds, core=1, rate=rate, calls=1)
        counts = settled(lab, 2)
        lab.stop()
        got = counts["in"][1]
        if got:
            break
    result = {"rate": rate, "sent": report["sent"], "received": got, **counts}
    result["holds"] = got == report["sent"] and not counts["drops"]
    print(f"  idle      {report['sent']:,} messages in {seconds:g} s for the worker that does not own"
          f" the rings: {got:,} received, dropped or handed over: {counts['drops'] or 'none'}")
    return result


def rate_of(lab, count, cores, seconds, flood_core):
    """Messages forwarded per second under more than the workers can take."""
    lab.start(count, cores)
    report = lab.flood(seconds, core=flood_core, warm_up=0.5)
    lab.stop()
    return report["window"]["requests_per_second"]


def one_core(lab, seconds, pairs):
    """Two workers on core 0 against one there, in interleaved pairs."""
    runs = [[rate_of(lab, count, [0], seconds, 1) for count in (1, 2)] for _ in range(pairs)]
    ratio = statistics.median(two / one for one, two in runs)
    one, two = (statistics.median(column) for column in zip(*runs))
    print(f"  one core  one worker {one:,.0f}/s, two {two:,.0f}/s: {ratio:.3f} pair by pair"
          " (goal 0.95)")
    return {"one": round(one), "two": round(two), "ratio": round(ratio, 4),
            "runs": [[round(rate) for rate in pair] for pair in runs], "holds": ratio >= 0.95}


def scaling(lab, cores, seconds):
    """Messages per second by workers, each on a core of its own."""
    counts = sorted({1, cores, *(1 << power for power in range(1, 7) if 1 << power < cores)})
    rates = {}
    for count in counts:
        rates[count] = round(rate_of(lab, count, list(range(count)), seconds, cores))
        print(f"  scaling   {count:>2} workers {rates[count]:>11,}/s,"
              f" {rates[count] / rates[1]:.2f} of one")
    return rates


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cores", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--require", action="store_true")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (3 if arguments.quick else 10)
    there = len(os.sched_getaffinity(0))
    if arguments.cores and arguments.cores >= there:
        sys.exit(f"scripts/bench cores: {arguments.cores} workers and the flood need"
                 f" {arguments.cores + 1} cores, here are {there}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = {"machine": machine.describe(), "seconds": seconds}
    try:
        with Lab() as lab:
            if arguments.cores:
                report["scaling"] = scaling(lab, arguments.cores, seconds)
            else:
                report["split"] = split(lab, seconds, arguments.rate)
                report["idle"] = idle(lab, seconds, arguments.rate)
                report["one_core"] = one_core(lab, min(seconds, 3), arguments.pairs or (
                    1 if arguments.quick else 5))
    except Failure as failure:
        sys.exit(f"scripts/bench cores: {failure}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    missed = [name for name, part in report.items()
              if isinstance(part, dict) and part.get("holds") is False]
    if missed and arguments.require:
        sys.exit(f"scripts/bench cores: missed: {', '.join(missed)}")


main()
