"""SIPp through XDP to three SIPp servers: families, arms, both ends hanging up.

Each run: first some calls of which tshark sees every message (`oracle.py`), then the load. No call failed, retransmissions at most 0.1 %, every server had calls (a BYE at another
server than its INVITE's would be an unexpected message there and a failed call here), frames in =
frames out + drops.
"""

import csv
import os
import pathlib

from lab import Lab, check, main
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


RUNS = {}
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
