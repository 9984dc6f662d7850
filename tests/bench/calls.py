"""CPU of the balancer's core per complete call: viaduct with and without transactions, Kamailio.

    peer: caller and three servers (`viaduct generate call`, `viaduct answer`)  core 1
      │ veth
    lb:   the balancer                                                          core 0

A call is INVITE, (100,) 180, 200, ACK, BYE, 200: seven messages in, seven or eight out. What the lb
side receives is processed by a thread of the kernel on core 0 (threaded NAPI), what the peer's side
receives by one on core 1, as two machines would do it; a veth pair alone would run the receive path
of either side on the core of the sender.

Two measures of the same: `core` is all that core 0 did but idle (/proc/stat: what the goal is
about; it counts every other program of the machine too), `tasks` is the run time of the
balancer's threads and of its receiving thread (exact, and right on a machine that is not quiet).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/interop"))
sys.path.insert(0, str(ROOT / "scripts"))
import machine  # noqa: E402
from lab import METRICS_PORT, VIADUCT, Failure, Lab, check  # noqa: E402

BALANCER_CORE, PEER_CORE = 0, 1
VIP = "198.18.0.1"
SERVERS = {n: f"198.18.1.{10 + n}" for n in (1, 2, 3)}
SOURCES = "198.18.0.100-198.18.0.199"
WARM_UP = 1.5
# A NIC moderates its interrupts: 20,000 a second are the default of Intel's drivers. A veth wakes for each packet.
MODERATION_NANOS = 50_000
GOAL_MICROS, GOAL_RATIO = 25, 10

CONFIG = f"""
[secret]
file = "{{path}}/secret"
[workers]
count = 1
cores = [{BALANCER_CORE}]
[datapath]
mode = "native"
[metrics]
address = "127.0.0.1:{METRICS_PORT}"
[[listeners]]
name = "clients"
address = "{VIP}:5060"
{{listener}}
[[pools]]
name = "farm"
""" + "".join(f'[[pools.servers]]\nname = "server{n}"\naddress = "{address}:5060"\n' for n, address in SERVERS.items())

# What an operator would run: records its route, chooses by Call-ID, relays with `tm`.
KAMAILIO = """#!KAMAILIO
children={children}
auto_aliases=no
dns=no
rev_dns=no
disable_tcp=yes
log_stderror=yes
debug=0
listen=udp:{vip}:5060
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "dispatcher.so"
modparam("dispatcher", "list_file", "{path}/dispatcher.list")
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  if (has_totag()) {{
    if (loose_route()) {{ t_relay(); exit; }}
    if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
    sl_send_reply("404", "Not here");
    exit;
  }}
  t_check_trans();
  record_route();
  if (!ds_select_dst("1", "0")) {{ sl_send_reply("503", "No server"); exit; }}
  t_relay();
}}
"""


class CallLab(Lab):
    """Two namespaces and one veth pair, each end's receiving thread on the core of its side."""

    def __enter__(self):
        self.prefix = f"vc{os.getpid()}-"
        self.balancers = {"lb": 1}
        self.open_folder()
        try:
            for name in ("lb", "peer"):
                subprocess.run(["ip", "netns", "add", self.prefix + name], check=True)
                self.command(name, "ip", "link", "set", "lo", "up")
            self.command("lb", "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0",
                         "netns", self.prefix + "peer")
            self.command("lb", "ip", "address", "add", f"{VIP}/15", "dev", "eth0")
            for address in (*SERVERS.values(), *(f"198.18.0.{n}" for n in range(100, 200))):
                self.command("peer", "ip", "address", "add", f"{address}/15", "dev", "eth0")
            for name, core in (("lb", BALANCER_CORE), ("peer", PEER_CORE)):
                before = receivers()
                self.command(name, "ip", "link", "set", "eth0", "up")
                # A veth has no NAPI, to run in a thread, before it has GRO or an XDP program, and takes
                # a datagram past it as long as the sender has TSO.
                self.command(name, "ethtool", "-K", "eth0", "gro", "on", "tso", "off")
                self.command(name, "sh", "-c", "cd /sys/class/net/eth0; echo 1 > threaded; echo 1 > napi_defer_hard_irqs; "
                             f"echo {MODERATION_NANOS} > gro_flush_timeout")
                check(len(self.pin(before, core)) == 1, f"no receiving thread of {name}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @staticmethod
    def pin(before, core):
        """Pins the kernel's receiving threads that are new; their ids."""
        made = receivers() - before
        for thread in made:
            os.sched_setaffinity(thread, {core})
        return made


def receivers():
    """The kernel's threads that receive for a network interface."""
    found = set()
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "comm").read_text().startswith("napi/eth0"):
                    found.add(int(entry.name))
            except OSError:
                pass
    return found


def run_time(processes, threads):
    """Seconds that processes, their children and kernel threads have run."""
    nanoseconds, wanted = 0, set(threads)
    for process in processes:
        family = [process]
        for parent in family:
            for task in pathlib.Path(f"/proc/{parent}/task").glob("*"):
                wanted.add(int(task.name))
                family += [int(child) for child in (task / "children").read_text().split()]
    for task in wanted:
        try:
            nanoseconds += int(pathlib.Path(f"/proc/{task}/schedstat").read_text().split()[0])
        except OSError:
            pass
    return nanoseconds / 1e9


def core_busy():
    """Seconds that the balancer's core was not idle."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if words[0] == f"cpu{BALANCER_CORE}":
            user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
            return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    raise Failure("no such core in /proc/stat")


def pinned(core, command):
    return ["taskset", "-c", core, *command]


def start(lab, what, children):
    """Starts a balancer; (process, its receiving threads)."""
    before = receivers()
    if what == "kamailio":
        (lab.path / "dispatcher.list").write_text("".join(f"1 sip:{address}:5060\n" for address in SERVERS.values()))
        (lab.path / "kamailio.cfg").write_text(KAMAILIO.format(vip=VIP, path=lab.path, children=children))
        process = lab.popen("lb", pinned(BALANCER_CORE, [
            "kamailio", "-DD", "-E", "-m", "512", "-M", "32", "-f", lab.path / "kamailio.cfg", "-P", lab.path / "kamailio.pid",
            "-Y", lab.path]), "kamailio.log")
        time.sleep(1.5)
        check(process.poll() is None, f"Kamailio has ended:\n{lab.log('kamailio.log')}")
    else:
        listener = {"stateful": 'stateful = ["INVITE"]', "stateless": "stateful = []"}[what]
        process = lab.serve("lb", CONFIG.format(path=lab.path, listener=listener), "viaduct")
    lab.pin(before, BALANCER_CORE)
    return process, [thread for thread in receivers() if os.sched_getaffinity(thread) == {BALANCER_CORE}]


def measure(lab, what, rate, seconds, children):
    """One run: microseconds per call."""
    report = lab.path / "calls.json"
    report.unlink(missing_ok=True)
    process, threads = start(lab, what, children)
    listen = ",".join(f"{address}:5060" for address in SERVERS.values())
    answerer = lab.popen("peer", pinned(PEER_CORE, [VIADUCT, "answer", "--quiet", "--listen", listen]), "answer.log")
    time.sleep(0.3)
    load = lab.popen("peer", pinned(PEER_CORE, [
        VIADUCT, "generate", "call", "--quiet", "--target", f"sip:service@{VIP}:5060", "--source", SOURCES, "--rate", rate,
        "--duration", f"{WARM_UP + seconds + 0.5}s", "--layouts", "plain", "--drain", "2s", "--json", report]), "generate.log")
    time.sleep(WARM_UP)
    begin, core, own, receiving = time.monotonic(), core_busy(), run_time([process.pid], []), run_time([], threads)
    time.sleep(seconds)
    elapsed = time.monotonic() - begin
    core, own, receiving = core_busy() - core, run_time([process.pid], []) - own, run_time([], threads) - receiving
    load.wait(60)
    lab.end(answerer)
    lab.end(process)
    check(report.exists(), f"no report of the generator:\n{lab.log('generate.log')}\n{lab.log('viaduct.log')}")
    calls = json.loads(report.read_text())
    done = rate * elapsed
    return {
        "what": what, "rate": rate, "offered": calls["offered"], "failed": calls["failed"],
        "retransmissions": calls["retransmissions"], "setup_p99_ms": calls["setup_ms"]["p99"],
        "generator_cpu": calls["cpu"], "bottleneck": calls["bottleneck_reasons"],
        "micros_core": round(1e6 * core / done, 2), "micros_tasks": round(1e6 * (own + receiving) / done, 2),
        "micros_receiving": round(1e6 * receiving / done, 2),
        "core": round(core / elapsed, 3),
    }


def show(result):
    note = f"  {result['failed']} FAILED" if result["failed"] else ""
    note += "".join(f"; {reason}" for reason in result["bottleneck"])
    print(f"  {result['what']:<12} {result['rate']:>8,} {result['micros_core']:>10.1f} {result['micros_tasks']:>10.1f}"
          f" {result['micros_receiving']:>12.1f}"
          f" {100 * result['core']:>7.0f} % {result['retransmissions']:>8} {result['setup_p99_ms']:>9.2f}{note}", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rates", default="3000,10000")
    parser.add_argument("--kamailio-rate", type=int, default=1500)
    parser.add_argument("--kamailio-children", type=int, default=4)
    parser.add_argument("--kinds", default="stateful,stateless,kamailio")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--require", action="store_true", help="exit 1 if a goal is missed")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    seconds = arguments.seconds or (3 if arguments.quick else 8)
    rates, kinds = [int(rate) for rate in arguments.rates.split(",")], arguments.kinds.split(",")
    load = os.getloadavg()[0]
    print(f"bench: CPU of the balancer's core per call, {rounds} rounds of {seconds:g} s")
    if load > 0.5:
        print(f"bench: the machine is not idle (load {load:.1f}): `core` counts the others, read `tasks`")
    print(f"  {'':<12} {'calls/s':>8} {'µs core':>10} {'µs tasks':>10} {'of it, rx':>12} {'core':>9} {'repeated':>8} {'p99 ms':>9}")
    runs = []
    if os.getpid() != os.getsid(0):
        machine.go_first()
    with CallLab() as lab:
        for _ in range(rounds):
            for what in kinds:
                for rate in [arguments.kamailio_rate] if what == "kamailio" else rates:
                    runs.append(measure(lab, what, rate, seconds, arguments.kamailio_children))
                    show(runs[-1])
    medians = {}
    for what in kinds:
        for rate in sorted({run["rate"] for run in runs if run["what"] == what}):
            of = [run for run in runs if (run["what"], run["rate"]) == (what, rate)]
            medians[f"{what}_{rate}"] = {name: statistics.median(run[name] for run in of) for name in ("micros_core", "micros_tasks", "micros_receiving")}
    # Others on the core are none of the balancer's work: then its own run time counts.
    disturbed = any(run["micros_core"] > 1.1 * run["micros_tasks"] for run in runs)
    by = "micros_tasks" if disturbed else "micros_core"
    if disturbed:
        print("bench: other programs ran on the balancer's core: the figures below are of `tasks`, and too high")
    report = {"derived": "calls per second = 10^6 / µs of the balancer's core per call", "by": by, "medians": medians, "runs": runs,
              "load_before": load, "machine": machine.describe()}
    failed = sum(run["failed"] for run in runs if run["what"] != "kamailio")
    for what, name in (("stateful", "viaduct_stateful_cps"), ("stateless", "viaduct_stateless_cps"), ("kamailio", "kamailio_tm_cps")):
        of = [medians[key][by] for key in medians if key.startswith(f"{what}_")]
        if of:
            report[name] = round(1e6 / of[-1])
            print(f"bench: {name} {report[name]:,} (derived: 10^6 / {of[-1]:.1f} µs)")
    missed = [f"{failed} calls failed"] if failed else []
    if "viaduct_stateful_cps" in report:
        slow = {key: of[by] for key, of in medians.items() if key.startswith("stateful_") and of[by] > GOAL_MICROS}
        missed += [f"{key}: {micros} µs a call, the goal is {GOAL_MICROS}" for key, micros in slow.items()]
        if "kamailio_tm_cps" in report:
            report["ratio_to_kamailio"] = round(report["viaduct_stateful_cps"] / report["kamailio_tm_cps"], 2)
            print(f"bench: {report['ratio_to_kamailio']} times Kamailio's (goal: {GOAL_RATIO})")
            if report["ratio_to_kamailio"] < GOAL_RATIO:
                missed.append(f"{report['ratio_to_kamailio']} times Kamailio's, the goal is {GOAL_RATIO}")
    for text in missed:
        print(f"bench: goal missed: {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if failed or (arguments.require and missed) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"scripts/bench: {failure}")
