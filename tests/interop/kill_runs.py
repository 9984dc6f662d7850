"""What an operator does to a running viaduct: kill -9, reload, bad files, stop."""

import json
import re
import signal
import time

from lab import VIADUCT, Failure, Lab, check, main
from oracle import oracle
from torture_runs import Wire


def answerers(lab, *options):
    """`viaduct answer` on each server, once it can be reached: a call before that is refused by ICMP."""
    made = [lab.popen(f"server{n}", [VIADUCT, "answer", "--name", f"server{n}", "--json", f"answer{n}.json",
                                     "--listen", f"{lab.bracket(lab.server(n))}:5060", *options], f"answer{n}.log")
            for n in range(1, lab.count + 1)]
    begin = time.monotonic()
    for n in range(1, lab.count + 1):
        while not lab.command(f"server{n}", "ss", "-Hlun", "sport", "=", ":5060").strip():
            check(time.monotonic() - begin < 10, f"server{n} does not listen: {lab.log(f'answer{n}.log')}")
            time.sleep(0.02)
    return made


def generator(lab, *options):
    return lab.popen("client", [VIADUCT, "generate", "call", "--target", lab.uri(), "--json", "calls.json",
                                "--source", "198.18.0.100-198.18.0.149", *options], "generate.log")


def finish(lab, load, processes, seconds):
    """Waits for the load's end; returns (calls report, servers' reports)."""
    load.wait(seconds)
    calls = json.loads((lab.path / "calls.json").read_text())
    for process in processes:
        lab.end(process)
    return calls, [json.loads((lab.path / f"answer{n}.json").read_text()) for n in (1, 2, 3)]


def kill_nine():
    """kill -9 under load: nothing stays behind, a new one serves at once, calls can be hung up."""
    with Lab() as lab:
        lab.start_viaduct()
        with oracle(lab) as judge:
            processes = answerers(lab)
            load = generator(lab, "--rate", "300", "--duration", "10s", "--hold", "3s")
            time.sleep(4)
            check(lab.total("xdp_in_total") > 1000, "there was no load before the kill")
            lab.viaduct.kill()
            lab.viaduct.wait()
            _, links = lab.run("lb", ["ip", "link", "show"], 5)
            check("xdp" not in links, f"an XDP program stayed behind:\n{links}")
            seconds = lab.start_viaduct()
            # A call through the new one, to know that it serves and not only that it runs.
            check(seconds < 2, f"the new one served after {seconds:.2f} s")
            calls, servers = finish(lab, load, processes, 60)
        strays = sum(server["stray"] for server in servers)
        check(calls["failed"] == 0, f"{calls['failed']} of {calls['offered']} calls failed: {calls['failures']}")
        check(strays == 0, f"{strays} in-dialog requests at a server that did not know the call")
        check(lab.viaduct.poll() is None, "the new viaduct has ended")
        return f"serving after {seconds:.2f} s, {calls['answered']} calls, {calls['retransmissions']} retransmissions; {judge}"


def reload_under_load():
    """Reload that removes and adds a server under load: no call fails; a bad file changes nothing."""
    with Lab() as lab:
        lab.start_viaduct(lab.config(servers=["server1", "server2"]))
        with oracle(lab) as judge:
            processes = answerers(lab)
            load = generator(lab, "--rate", "500", "--duration", "8s", "--hold", "2s")
            time.sleep(2)
            lab.reload(lab.config())
            time.sleep(2)
            lab.reload(lab.config(servers=["server2", "server3"]))
            time.sleep(1)
            version = lab.total("configuration_version")
            (lab.path / "viaduct.toml").write_text("[[listeners]]\nname = 3\n")
            lab.viaduct.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            check(lab.total("configuration_version") == version, "a bad file was taken")
            check(lab.total("reloads_refused_total") == 1, "the refusal was not counted")
            check("listeners[0].name" in lab.log("viaduct.log"), "the log does not name the bad key")
            calls, servers = finish(lab, load, processes, 60)
        strays = sum(server["stray"] for server in servers)
        check(calls["failed"] == 0, f"{calls['failed']} of {calls['offered']} calls failed: {calls['failures']}")
        check(strays == 0, f"{strays} in-dialog requests at a server that did not know the call")
        lab.conserved()
        return f"{calls['answered']} calls over three configurations; {judge}"


def reload_while_ringing():
    """INVITE, then servers added and removed (its own too), then CANCEL: one server, one branch."""
    with Lab() as lab:
        lab.start_viaduct()
        wire = Wire(lab)
        try:
            with oracle(lab) as judge:
                pending = []
                for n in range(20):
                    pending.append((n, *_request(lab, wire, n, "INVITE")))
                for servers in (["server1"], ["server2", "server3"], ["server3"], ["server1", "server2", "server3"]):
                    lab.reload(lab.config(servers=servers))
                    for n, server, branch in pending:
                        for method in ("INVITE", "CANCEL", "ACK"):
                            now, its_branch = _request(lab, wire, n, method)
                            check(now is server, f"{method} of call {n} went to another server under {servers}")
                            check(its_branch == branch, f"{method} of call {n} has another branch")
            lab.conserved()
            return f"{len(pending)} ringing calls, 4 reloads; {judge}"
        finally:
            wire.close()


def _request(lab, wire, n, method):
    host = lab.bracket(lab.client)
    text = (f"{method} {lab.uri()} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:5060;branch=z9hG4bKring{n};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:f@{host}>;tag=r{n}\r\nTo: <{lab.uri()}>"
            f"{';tag=s' if method == 'ACK' else ''}\r\nCall-ID: ringing-{n}@{host}\r\nCSeq: 7 {method}\r\n"
            f"Contact: <sip:f@{host}>\r\nContent-Length: 0\r\n\r\n")
    forwarded, back = wire.exchange(text.encode())
    check(len(forwarded) == 1, f"{method} of call {n}: {len(forwarded)} forwarded, {back}")
    server, data, _ = forwarded[0]
    branch = re.search(rb"branch=(z9hG4bK[^;\r\n,]*)", data)[1]
    return server, branch


def stop_cleanly():
    """SIGTERM: ends with code 0, no program, no socket left."""
    with Lab() as lab:
        lab.start_viaduct()
        code = lab.end(lab.viaduct)
        check(code == 0, f"exit {code}\n{lab.log('viaduct.log')}")
        _, links = lab.run("lb", ["ip", "link", "show"], 5)
        check("xdp" not in links, f"an XDP program stayed behind:\n{links}")
        seconds = lab.start_viaduct()
        check(seconds < 2, f"a new start took {seconds:.2f} s")
        # Told to stop, or to reload and stop, the moment it can be known that it runs.
        for n in range(10):
            if n % 2:
                lab.viaduct.send_signal(signal.SIGHUP)
            code = lab.end(lab.viaduct)
            check(code == 0, f"exit {code} when stopped at once\n{lab.log('viaduct.log')}")
            lab.start_viaduct()
        return f"a new start took {seconds:.2f} s"


def idle():
    """An idle viaduct uses under 2 % of a core."""
    with Lab() as lab:
        lab.start_viaduct()
        time.sleep(1)
        fields = lambda: open(f"/proc/{lab.viaduct.pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
        ticks = lambda: int(fields()[11]) + int(fields()[12])
        before, begin = ticks(), time.monotonic()
        time.sleep(10)
        share = (ticks() - before) / 100 / (time.monotonic() - begin)
        check(share < 0.02, f"idle CPU {100 * share:.2f} %")
        return f"{100 * share:.2f} % of a core"


def second_instance():
    """A second start on the same interface says who is there."""
    with Lab() as lab:
        lab.start_viaduct()
        code, output = lab.run("lb", [VIADUCT, "run", "--config", lab.path / "viaduct.toml"], 30)
        if code == 0:
            raise Failure("a second viaduct ran on the same addresses")
        check(re.search(r"in use|already|EBUSY|busy", output), f"the message does not say why:\n{output}")
        check(lab.viaduct.poll() is None and lab.total("workers") == 1, "the first one was harmed")
        return ""


if __name__ == "__main__":
    raise SystemExit(main({
        "kill-9": kill_nine, "reload-under-load": reload_under_load,
        "reload-while-ringing": reload_while_ringing, "stop-cleanly": stop_cleanly,
        "idle": idle, "second-instance": second_instance,
    }))
