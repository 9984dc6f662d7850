"""INVITE with a transaction, under load: real SIPp at both ends, servers that die, refuse or say nothing.

What leaves viaduct is judged by tshark during a smaller load before each large one.
"""

import json
import os
import signal
import time

from kill_runs import answerers, generator
from lab import VIADUCT, Lab, check, main
from oracle import oracle
from sipp_runs import BUFFER, CALLS, JUDGED_CALLS, JUDGED_RATE, RATE, calls, scenario
from wan import wan

# Probes often enough that a dead server is known in time, by the smallest farm too.
HEALTH = "[pools.health]\ninterval = 0.5\ntimeout = 0.5\n"


def sipp_servers(lab, *scenarios):
    """SIPp on each server, with one scenario for all or one each."""
    return [lab.popen(f"server{n}", ["sipp", *scenarios[(n - 1) % len(scenarios)], "-i", lab.bracket(lab.server(n)), "-p", "5060",
                                     "-nostdin", "-buff_size", BUFFER, "-trace_stat", "-stf", f"uas{n}_.csv", "-fd", "1"],
                      f"uas{n}.log") for n in range(1, lab.count + 1)]


def plain(family, arms, count, uac="uac_record_route", uas="uas_record_route", workers=1):
    """SIPp calls SIPp: no call fails, hardly a message is repeated, all of it by XDP. Among several
    workers every message finds its call's home at once."""
    def run():
        with Lab(family=family, arms=arms, queues=workers, workers=workers) as lab:
            lab.start_viaduct()
            sipp_servers(lab, scenario(uas))
            with oracle(lab) as judge:
                calls(lab, scenario(uac), JUDGED_CALLS, JUDGED_RATE)
            good, repeats = calls(lab, scenario(uac), count, RATE)
            check(repeats <= 3 * count / 1000, f"{repeats} retransmissions in {count} calls")
            chosen = [lab.total("server_selected_total", server=f"server{n}") for n in (1, 2, 3)]
            check(all(chosen), f"calls per server {chosen}")
            received, _, drops = lab.conserved()
            check(lab.total("xdp_in_total") > 0.99 * received, f"of {received} messages {lab.total('xdp_in_total')} by XDP")
            check(drops == 0, f"drops {lab.drops()}")
            check(lab.total("hand_over_out_total") == 0, f"{lab.total('hand_over_out_total')} messages handed over")
            return f"{good} calls, {repeats} retransmissions, servers {chosen}; {JUDGED_CALLS} calls before them: {judge}"
    return run


def half_refused():
    """One of three answers 503 to half of its INVITEs: another server gets them, no caller hears of it."""
    with Lab() as lab:
        lab.start_viaduct(lab.config(pool_extra="retry_budget = 100"))
        sipp_servers(lab, scenario("uas_record_route"), scenario("uas_half_503"), scenario("uas_record_route"))
        with oracle(lab) as judge:
            calls(lab, scenario("uac_record_route"), JUDGED_CALLS, JUDGED_RATE)
        good, _ = calls(lab, scenario("uac_record_route"), 4000, 500)
        check(judge.attempts > judge.transactions + 50, f"hardly a 503: {judge}")
        lab.conserved()
        return f"{good} calls; {judge}"


def load_report(lab, load, processes, seconds=60):
    """The generator's report once it is done; the servers end."""
    load.wait(seconds)
    for process in processes:
        lab.end(process)
    return json.loads((lab.path / "calls.json").read_text())


def watch(lab, load, server, seconds):
    """Until the load's end: how long after the beginning requests were still sent to a server."""
    begin, last, count = time.monotonic(), 0.0, lab.total("server_selected_total", server=server)
    while time.monotonic() - begin < seconds and load.poll() is None:
        time.sleep(0.05)
        now = lab.total("server_selected_total", server=server)
        if now > count:
            last, count = time.monotonic() - begin, now
    return last


def killed():
    """kill -9 of one of three servers under 1,000 calls/s: only calls that it had answered are lost."""
    with Lab() as lab:
        lab.start_viaduct(lab.config(pool_extra=HEALTH))
        processes = answerers(lab)
        hold = 1
        load = generator(lab, "--calls", CALLS, "--rate", RATE, "--hold", f"{hold}s")
        time.sleep(CALLS / RATE / 2)
        processes[1].kill()
        processes[1].wait()
        detected = watch(lab, load, "server2", CALLS / RATE / 2 - 1)
        report = load_report(lab, load, processes)
        check(detected < 2, f"server2 still got calls {detected:.2f} s after its death")
        # What it had answered: calls up for the hold, and those just being set up.
        most = RATE * (hold + 0.1) / 3 * 1.15
        early = {why: count for why, count in report["failures"].items() if "BYE" not in why.upper()}
        check(report["failed"] <= most, f"{report['failed']} calls lost, {most:.0f} were up: {report['failures']}")
        check(not early, f"calls lost that no server had answered: {report['failures']}")
        check(report["answered"] == CALLS, f"{report['answered']} of {CALLS} answered: {report['failures']}")
        return (f"{report['answered']} calls answered, {report['failed']} of those up at the dead server lost, "
                f"the last call to it after {detected:.2f} s, set-up at most {report['setup_ms']['max']:.0f} ms")


def silent():
    """One of three servers says nothing: calls hunt on, and soon nobody is sent there."""
    with Lab() as lab:
        lab.start_viaduct(lab.config(pool_extra=HEALTH))
        processes = answerers(lab)
        load = generator(lab, "--calls", 6000, "--rate", 500)
        time.sleep(4)
        # It stands still: nothing refuses what comes for it.
        for pid in family(processes[1].pid):
            os.kill(pid, signal.SIGSTOP)
        detected = watch(lab, load, "server2", 7)
        for pid in family(processes[1].pid):
            os.kill(pid, signal.SIGCONT)
        report = load_report(lab, load, processes)
        check(detected < 2.5, f"server2 still got calls {detected:.2f} s after it fell silent")
        check(report["failed"] == 0, f"{report['failed']} of {report['offered']} failed: {report['failures']}")
        check(report["setup_ms"]["max"] < 6500, f"a call took {report['setup_ms']['max']} ms")
        return f"{report['answered']} calls, the last to the silent server after {detected:.2f} s, set-up {report['setup_ms']}"


def family(pid):
    """A process and its children."""
    found = [pid]
    for parent in found:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            found += map(int, file.read().split())
    return found


def loaded(answer, generate, judged, large, holds):
    """A load of one kind, a small part judged; `holds(report, servers)` says what is wrong."""
    def run():
        with Lab() as lab:
            lab.start_viaduct()
            processes = answerers(lab, *answer)
            with oracle(lab) as judge:
                load = generator(lab, *generate, "--calls", judged[0], "--rate", judged[1])
                load.wait(60)
            small = json.loads((lab.path / "calls.json").read_text())
            check(not (fault := holds(small)), f"the judged part: {fault}")
            load = generator(lab, *generate, "--calls", large[0], "--rate", large[1])
            report = load_report(lab, load, processes)
            check(not (fault := holds(report)), f"{fault}; drops {lab.drops()}")
            lab.conserved()
            return (f"{report['offered']} calls, set-up {report['setup_ms']['p99']:.1f} ms at p99, "
                    f"{report['retransmissions']} retransmissions; {judge}")
    return run


def all_cancelled(report):
    if report["cancelled"] != report["offered"] or report["failed"]:
        return f"{report['cancelled']} of {report['offered']} cancelled, failures {report['failures']}"
    return ""


def all_answered(report):
    if report["answered"] != report["offered"] or report["failed"]:
        return f"{report['answered']} of {report['offered']} answered, failures {report['failures']}"
    return ""


def all_refused(status):
    def holds(report):
        told = {why: count for why, count in report["responses_received"].items() if why not in ("100", "180", "183")}
        if report["answered"] or set(told) != {str(status)}:
            return f"answered {report['answered']}, responses {report['responses']}, failures {report['failures']}"
        return ""
    return holds


def bad_network(seed, count, rate, *generate):
    """5 % of all datagrams lost, 5 % doubled, 5 % overtaken, on both legs: no call is lost."""
    def run():
        with Lab() as lab:
            lab.start_viaduct()
            with wan(lab, seed) as counts:
                processes = answerers(lab)
                with oracle(lab) as judge:
                    load = generator(lab, *generate, "--calls", JUDGED_CALLS, "--rate", 100, "--seed", seed)
                    load.wait(60)
                small = json.loads((lab.path / "calls.json").read_text())
                check(not (fault := all_answered(small)), f"the judged part: {fault}")
                load = generator(lab, *generate, "--calls", count, "--rate", rate, "--seed", seed + 1)
                report = load_report(lab, load, processes, 120)
            check(counts["overflow"] == 0, f"the network itself was too slow: {counts}")
            shares = [counts[name] / counts["datagrams"] for name in ("lost", "duplicated", "delayed")]
            check(all(0.04 < share < 0.06 for share in shares), f"not the network that was asked for: {counts}")
            check(not (fault := all_answered(report)), f"{fault}, seed {seed}; drops {lab.drops()}")
            return (f"{report['answered']} calls over {counts['datagrams']} datagrams, {counts['lost']} lost, {counts['duplicated']} doubled, "
                    f"{counts['delayed']} overtaken, seed {seed}; {report['retransmissions']} retransmissions; {judge}")
    return run


def crashed(rescue):
    """kill -9 of viaduct while calls ring: with `rescue` they are answered all the same, without it
    they are lost, and no others."""
    def run():
        rate, ring = 200, 1.0
        with Lab(extra=f"[transactions]\nrescue = {str(rescue).lower()}\n") as lab:
            lab.start_viaduct()
            processes = answerers(lab, "--ring", "0ms", "--answer", f"{1000 * ring:.0f}ms")
            load = generator(lab, "--rate", rate, "--duration", "8s", "--hold", "500ms", "--timeout", "5s", "--drain", "12s")
            time.sleep(4)
            lab.viaduct.kill()
            lab.viaduct.wait()
            seconds = lab.start_viaduct()
            check(seconds < 2, f"the new one served after {seconds:.2f} s")
            report = load_report(lab, load, processes)
            ringing = rate * ring
            if rescue:
                check(report["failed"] == 0, f"{report['failed']} of {report['offered']} calls lost: {report['failures']}")
            else:
                check(0.5 * ringing < report["failed"] < 1.3 * ringing,
                      f"{report['failed']} calls lost where some {ringing:.0f} rang: {report['failures']}")
            return f"serving after {seconds:.2f} s, {report['answered']} of {report['offered']} answered, some {ringing:.0f} rang"
    return run


def drained():
    """`viaduct ctl drain` and `enable` in the middle of a load: no call is lost, none new goes there."""
    with Lab() as lab:
        socket = lab.path / "control"
        lab.extra = f'[control]\nsocket = "{socket}"\n'
        lab.start_viaduct()
        processes = answerers(lab)
        load = generator(lab, "--rate", 300, "--duration", "9s", "--hold", "1s")

        def ctl(*words):
            code, output = lab.run("lb", [VIADUCT, "ctl", "--control", socket, *words], 10)
            check(code == 0, f"viaduct ctl {' '.join(words)}: exit {code}: {output}\n{lab.log('viaduct.log')}")
            return output

        def chosen():
            return lab.total("server_selected_total", server="server2")

        time.sleep(2.5)
        check(chosen() > 100, f"server2 had {chosen()} calls before it was drained")
        ctl("drain", "server2")
        time.sleep(0.2)  # what was chosen before the new plan was seen
        before, begin = chosen(), time.monotonic()
        check("drain" in ctl("list").lower(), f"no word of draining: {ctl('list')}")
        ctl("drain", "server2", "--wait")
        seconds = time.monotonic() - begin
        check(0.3 < seconds < 5, f"drained after {seconds:.2f} s, calls last 1 s")
        time.sleep(1)
        check(chosen() == before, f"{chosen() - before} new calls at a server that drains")
        ctl("enable", "server2")
        time.sleep(1)
        check(chosen() > before + 20, f"{chosen() - before} calls after it was enabled")
        report = load_report(lab, load, processes)
        check(not (fault := all_answered(report)), fault)
        lab.conserved()
        return f"{report['answered']} calls, server2 empty after {seconds:.2f} s"


Lab.stateful = True
RUNS = {
    "sipp-20000": plain(4, 1, CALLS), "sipp-ipv6-2arm": plain(6, 2, CALLS // 4), "sipp-server-bye": plain(4, 2, CALLS // 4, "uac_server_bye", "uas_server_bye"),
    "sipp-2-workers": plain(4, 2, CALLS // 4, workers=2),
    "kill-server": killed, "half-503": half_refused, "silent": silent,
    "cancel-storm": loaded(["--answer", "30s"], ["--cancel-after", "200ms"], (300, 300), (5000, 1000), all_cancelled),
    "busy": loaded(["--reject", "486"], [], (300, 300), (2000, 500), all_refused(486)),
    "moved": loaded(["--reject", "302"], [], (300, 300), (2000, 500), all_refused(302)),
    "auth": loaded(["--auth", "alice:secret", "--auth-calls"], ["--auth", "alice:secret"], (300, 300), (3000, 500), all_answered),
    "bad-network": bad_network(20261122, CALLS, RATE),
    "drain": drained, "crash": crashed(False), "crash-rescue": crashed(True),
}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
