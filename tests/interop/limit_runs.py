"""Floods against viaduct's limiter, with known peers calling meanwhile.

    attacker ── br-out ── lb          a flood of INVITEs from forged addresses, made in the kernel
    client   ──┤                      50 known peers, calling with passwords
    server1..3 ┘                      ask for passwords

Goodput is the share of the known peers' calls that are answered within two seconds, as a caller
would wait. Every flood is bounded in frames and in time. Each attack runs twice, without the limiter
and with it, and prints both.
"""

import json
import re
import time

from lab import VIADUCT, Lab, check, main

# 100,352 forged addresses, none of a host in the lab; the lab's router for them is the client's
# host, where what is sent to them ends.
FORGED = ["198.18.120.0/21", "198.18.128.0/17", "198.19.0.0/16"]
KNOWN = "198.18.0.100-198.18.0.149"
NEWCOMERS = "198.18.0.150-198.18.0.199"
PASSWORD = "alice:wonderland"
GOODPUT = 0.95

RATE, SECONDS = 50, 8
FLOOD_RATE = 120_000
LIMIT = """
[limit]
packets_per_second = 200
strangers_per_second = 200
"""


def answerers(lab):
    """Servers that ask for a password, as farms do."""
    return [lab.popen(f"server{n}", [VIADUCT, "answer", "--name", f"server{n}", "--auth", PASSWORD, "--auth-calls",
                                     "--listen", f"{lab.server(n)}:5060", "--quiet"], f"answer{n}.log")
            for n in (1, 2, 3)]


def calls(lab, name, source, rate=RATE, seconds=SECONDS):
    """Starts calls from some addresses; those not answered in two seconds have failed."""
    return lab.popen("client", [VIADUCT, "generate", "call", "--target", lab.uri(), "--source", source,
                                "--auth", PASSWORD, "--rate", rate, "--duration", f"{seconds}s", "--timeout", "2s",
                                "--drain", "3s", "--json", f"{name}.json", "--max-failed", "1000000", "--quiet"],
                     f"{name}.log")


def goodput(lab, name, process):
    """Waits for the calls' end; returns (share answered, report)."""
    process.wait(60)
    report = json.loads((lab.path / f"{name}.json").read_text())
    check(report["offered"] > 0, f"no calls were offered:\n{lab.log(name + '.log')}")
    return report["answered"] / report["offered"], report


def flood(lab, sources, rate, seconds):
    """Starts a flood of INVITEs to the VIP."""
    return lab.popen("attacker", [VIADUCT, "generate", "flood", "--interface", "eth0", "--target", f"{lab.vip}:5060",
                                  "--target-mac", lab.mac("lb"), "--source", sources, "--rate", rate,
                                  "--warm-up", "0s", "--duration", f"{seconds}s", "--frames", rate * seconds,
                                  "--json", "flood.json"], "flood.log")


def attacker(lab):
    """The host that forges, and the router that answers to forged addresses go to."""
    lab.add("attacker", "br-out", "198.18.3.1/16")
    # The kernel sends a BPF program's frames into a veth whose other end has NAPI, as GRO gives it.
    lab.command("net", "ethtool", "-K", "attacker-eth0", "gro", "on")
    for network in FORGED:
        lab.command("lb", "ip", "route", "add", network, "via", lab.client)


def verdicts(lab):
    """Frames by verdict of the steering program, those that are not zero."""
    return {labels["verdict"]: int(value) for name, labels, value in lab.metrics()
            if name == "steering_total" and value}


def attack(limit, sources, rate, newcomers=False):
    """One attack; returns (goodput of known peers, of newcomers, verdicts, flood's report)."""
    with Lab() as lab:
        attacker(lab)
        lab.start_viaduct(lab.config() + limit)
        answerers(lab)
        time.sleep(0.5)
        # Every known peer has been served before.
        share, report = goodput(lab, "before", calls(lab, "before", KNOWN, seconds=2))
        check(share == 1.0, f"without any flood {share:.1%} of the calls were answered: {report['failures']}")
        time.sleep(0.2)
        before = verdicts(lab)
        # Longer than the calls can take; it is ended when they are done.
        flooding = flood(lab, sources, rate, SECONDS + 20)
        # Rendering a hundred thousand sources takes its time; the calls start when frames arrive.
        begin = time.monotonic()
        while sum(verdicts(lab).values()) < sum(before.values()) + rate:
            check(time.monotonic() - begin < 60 and flooding.poll() is None, f"no flood:\n{lab.log('flood.log')}")
            time.sleep(0.1)
        known = calls(lab, "known", KNOWN)
        new = calls(lab, "new", NEWCOMERS, rate=5) if newcomers else None
        share, report = goodput(lab, "known", known)
        new_share = goodput(lab, "new", new)[0] if new else None
        check(flooding.poll() is None, "the flood ended before the calls")
        after = verdicts(lab)
        check(lab.end(flooding) == 0, f"the flood did not end well:\n{lab.log('flood.log')}")
        counted = {verdict: count - before.get(verdict, 0) for verdict, count in after.items()}
        sent = json.loads((lab.path / "flood.json").read_text())
        check(lab.viaduct.poll() is None, f"viaduct has ended:\n{lab.log('viaduct.log')}")
        return share, new_share, counted, sent["window"]["sent_per_second"], report


def both(sources, rate, limit, verdict, newcomers=False):
    """The attack without the limiter and with it; the limiter must keep the known peers' goodput."""
    off, new_off, counted_off, rate_off, _ = attack("", sources, rate, newcomers)
    on, new_on, counted_on, rate_on, report = attack(limit, sources, rate, newcomers)
    check(verdict not in counted_off, f"limited without a limiter: {counted_off}")
    check(counted_on.get(verdict, 0) > 0.5 * rate * SECONDS, f"the flood was not refused: {counted_on}")
    check(on >= GOODPUT, f"goodput of known peers {off:.1%} without limiter, {on:.1%} with it: {report['failures']}")
    # Figures to be told, not gates: without the limiter the machine decides what is lost.
    text = (f"{rate_off:,.0f} and {rate_on:,.0f} INVITEs/s: goodput of known peers {off:.1%} without limiter, "
            f"{on:.1%} with it (median set-up {report['setup_ms']['p50']:.1f} ms), "
            f"{counted_on[verdict]:,} {verdict}")
    if newcomers:
        text += f"; of newcomers {new_off:.1%} and {new_on:.1%}"
    return text


def forged_sources():
    """A flood from 10^5 forged addresses: known peers keep their calls."""
    return both(",".join(FORGED), FLOOD_RATE, LIMIT, "strangers_limited", newcomers=True)


def one_source():
    """A flood from one address: its own bucket stops it, with no limit on strangers."""
    limit = "\n[limit]\npackets_per_second = 200\n"
    return both("198.18.130.7", FLOOD_RATE, limit, "rate_limited")


def reload_live():
    """On by reload, dry first; off again; what needs a restart is refused."""
    with Lab() as lab:
        attacker(lab)
        config = lambda rest: lab.config() + "\n[limit]\n" + rest
        lab.start_viaduct(config(""))
        answerers(lab)
        time.sleep(0.5)
        def after(rest):
            if rest is not None:
                lab.reload(config(rest))
            before = verdicts(lab)
            flood(lab, "198.18.130.7", 2000, 2).wait(30)
            return {verdict: count - before.get(verdict, 0) for verdict, count in verdicts(lab).items()
                    if "limited" in verdict and count > before.get(verdict, 0)}
        check(after(None) == {}, "limited before it was said")
        dry = after("packets_per_second = 100\nburst = 100\ndry_run = true")
        time.sleep(1.2)
        check(re.search(r"limited.*rate_limited_dry.*198\.18\.130\.7", lab.log("viaduct.log")), lab.log("viaduct.log"))
        check(set(dry) == {"rate_limited_dry"} and dry["rate_limited_dry"] > 3000, f"{dry}")
        wet = after("packets_per_second = 100\nburst = 100")
        check(set(wet) == {"rate_limited"} and wet["rate_limited"] > 3000, f"{wet}")
        spared = after("packets_per_second = 100\nburst = 100\nwhitelist = [\"198.18.130.0/24\"]")
        check(spared == {}, f"a whitelisted source was limited: {spared}")
        check(after("packets_per_second = 0") == {}, "limited after it was switched off")
        version = lab.total("configuration_version")
        try:
            lab.reload(config("packets_per_second = 100\nsources = 2048"))
        except Exception as refused:
            check("limit.sources" in str(refused), f"the log does not name the key: {refused}")
        check(lab.total("configuration_version") == version, "a changed limit.sources was taken")
        return f"dry {dry['rate_limited_dry']}, wet {wet['rate_limited']} of 4,000"


def socket_mode_says_so():
    """Kernel sockets have no limiter, and the log says it."""
    with Lab(mode="socket") as lab:
        lab.start_viaduct(lab.config() + LIMIT)
        check(re.search(r"WARN.*limit.*nothing is limited", lab.log("viaduct.log")), lab.log("viaduct.log"))
        return ""


if __name__ == "__main__":
    raise SystemExit(main({
        "forged-sources": forged_sources, "one-source": one_source, "reload-live": reload_live,
        "socket-mode-says-so": socket_mode_says_so,
    }))
