"""SIPp through XDP to three SIPp servers: families, arms, both ends hanging up; and SIPp's scenarios played by viaduct
on either side.

Each run: first some calls of which tshark sees every message (`oracle.py`), then the load. No call failed, retransmissions at most 0.1 %, every server had calls (a BYE at another
server than its INVITE's would be an unexpected message there and a failed call here), frames in =
frames out + drops.
"""

import csv
import json
import os
import pathlib
import subprocess
import time

from lab import VIADUCT, Lab, check, main
from oracle import oracle

SCENARIOS = pathlib.Path(__file__).resolve().parent / "sipp"
CALLS = int(os.environ.get("INTEROP_CALLS", "20000"))
RATE = int(os.environ.get("INTEROP_RATE", "1000"))
JUDGED_CALLS, JUDGED_RATE = 600, 300
# SIPp's own 64 KiB hold some 40 messages: a pause of 10 ms would lose some, and SIPp blame us.
BUFFER = "4194304"


def statistics(path, name="uac"):
    """The last row of a SIPp statistics file."""
    files = sorted(path.glob(f"{name}*_.csv"))
    check(files, "SIPp wrote no statistics")
    with open(files[-1], encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))[-1]


def calls(lab, uac, count, rate):
    """A load of calls, none of which may fail: (good calls, retransmissions)."""
    code, _ = lab.run(
        "client", ["sipp", *uac, "-s", "service", "-i", lab.bracket(lab.client), "-p", "5060",
                   "-m", count, "-r", rate, "-l", rate * 10, "-nostdin", "-recv_timeout", "20000", "-buff_size", BUFFER,
                   "-trace_stat", "-stf", f"uac{count}_.csv", "-fd", "1", "-trace_err", "-error_file", "uac.err",
                   f"{lab.bracket(lab.vip)}:5060"], count / rate + 60)
    row = statistics(lab.path, f"uac{count}")
    good, bad = int(row["SuccessfulCall(C)"]), int(row["FailedCall(C)"])
    errors = lab.log("uac.err", 5)[:600]
    check(code == 0 and bad == 0 and good == count,
          f"{good} of {count} calls good, {bad} failed, exit {code}\n{errors}\n{lab.log('viaduct.log')}\n"
          f"drops {lab.drops()}, rings {lab.device_losses()}, lost by full sockets of peers {lab.peers_losses()}")
    return good, int(row["Retransmissions(C)"])


def run(family, arms, uac, uas):
    """One SIPp run; `uac` and `uas` are scenario arguments."""
    with Lab(family=family, arms=arms) as lab:
        lab.start_viaduct()
        servers = []
        for n in (1, 2, 3):
            address = lab.server(n)
            servers.append(lab.popen(
                f"server{n}", ["sipp", *uas, "-i", lab.bracket(address), "-p", "5060", "-nostdin", "-buff_size", BUFFER,
                               "-trace_stat", "-stf", f"uas{n}_.csv", "-fd", "1"], f"uas{n}.log"))
        with oracle(lab) as judge:
            calls(lab, uac, JUDGED_CALLS, JUDGED_RATE)
        good, repeats = calls(lab, uac, CALLS, RATE)
        # A call is INVITE, ACK and BYE: three messages the caller can have to repeat.
        check(repeats <= 3 * CALLS / 1000, f"{repeats} retransmissions in {CALLS} calls")
        chosen = {n: lab.total("server_selected_total", server=f"server{n}") for n in (1, 2, 3)}
        check(all(chosen.values()), f"calls per server {chosen}")
        received, _, drops = lab.conserved()
        xdp = lab.total("xdp_in_total")
        check(xdp > 0.99 * received, f"only {xdp} of {received} messages came through XDP")
        check(drops == 0, f"drops {lab.drops()}")
        return (f"{good} calls, {repeats} retransmissions, servers {list(chosen.values())}, {xdp} messages by XDP; "
                f"{JUDGED_CALLS} calls before them: {judge}")


def scenario(name):
    return ["-sf", SCENARIOS / f"{name}.xml"]


def stock(lab, name):
    """A scenario of SIPp's own, as it prints it."""
    path = lab.path / f"{name}.xml"
    path.write_text(subprocess.run(["sipp", "-sd", name], capture_output=True, text=True, check=False).stdout)
    return path


def played(uac, uas, ours):
    """The same with viaduct as the player of one side or of both: `ours` is caller, callee or both."""
    with Lab() as lab:
        lab.start_viaduct()
        uac, uas = (stock(lab, name) if name in ("uac", "uas") else SCENARIOS / f"{name}.xml" for name in (uac, uas))
        servers = []
        for n in (1, 2, 3):
            address = lab.bracket(lab.server(n))
            command = ["sipp", "-sf", uas, "-i", address, "-p", "5060", "-nostdin", "-buff_size", BUFFER]
            if ours != "caller":
                command = [VIADUCT, "answer", "--scenario", uas, "--listen", f"{address}:5060", "--json", f"answer{n}.json"]
            servers.append(lab.popen(f"server{n}", command, f"uas{n}.log"))
        begin = time.monotonic()
        for n in (1, 2, 3):
            while not lab.command(f"server{n}", "ss", "-Hlun", "sport", "=", ":5060").strip():
                check(time.monotonic() - begin < 10, f"server{n} does not listen: {lab.log(f'uas{n}.log')}")
                time.sleep(0.02)
        if ours == "callee":
            good, repeats = calls(lab, ["-sf", uac], CALLS, RATE)
        else:
            load = lab.popen("client", [VIADUCT, "generate", "scenario", "--file", uac, "--target", lab.uri(), "--rate", RATE,
                                        "--calls", CALLS, "--source-port", "5060", "--json", "calls.json"], "generate.log")
            load.wait(CALLS / RATE + 60)
            report = json.loads((lab.path / "calls.json").read_text())
            good, repeats = report["offered"] - report["failed"], report["retransmissions"]
            check(good == CALLS, f"{report['failed']} of {report['offered']} calls failed: {report['failures']}")
        check(repeats <= 3 * CALLS / 1000, f"{repeats} retransmissions in {CALLS} calls")
        for server in servers:
            lab.end(server)
        if ours != "caller":
            answers = [json.loads((lab.path / f"answer{n}.json").read_text()) for n in (1, 2, 3)]
            check(not any(answer.get("failed") for answer in answers), f"failed at the servers: {answers}")
            check(sum(answer["calls"] for answer in answers) == CALLS, f"calls at the servers: {answers}")
        received, _, drops = lab.conserved()
        check(drops == 0, f"drops {lab.drops()}")
        return f"{good} calls, {repeats} retransmissions, {received} messages"


RUNS = {}
for _name, _uac, _uas in (("stock", "uac", "uas"), ("record-route", "uac_record_route", "uas_record_route"),
                          ("server-bye", "uac_server_bye", "uas_server_bye")):
    for _ours in ("caller", "callee", "both"):
        RUNS[f"played-{_name}-{_ours}"] = lambda uac=_uac, uas=_uas, ours=_ours: played(uac, uas, ours)
for _family in (4, 6):
    for _arms in (1, 2):
        for _name, _uac, _uas in (
                ("stock", ["-sn", "uac"], ["-sn", "uas"]),
                ("record-route", scenario("uac_record_route"), scenario("uas_record_route")),
                ("server-bye", scenario("uac_server_bye"), scenario("uas_server_bye"))):
            RUNS[f"{_name}-ipv{_family}-{_arms}arm"] = (
                lambda family=_family, arms=_arms, uac=_uac, uas=_uas: run(family, arms, uac, uas))

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
