"""Twice as many calls as viaduct has CPU for: most of what it can do it does, emergency calls and
calls that are up first.

A cgroup holds viaduct to a share of a core; the capacity is found in steps.
"""

import contextlib
import json
import os
import pathlib

from kill_runs import answerers, generator
from lab import Lab, check, main
from sipp_runs import BUFFER, scenario, statistics

CPU = pathlib.Path("/sys/fs/cgroup/cpu")
PERIOD_MICROS, SHARE = 20_000, 0.06
SECONDS, SOS_RATE = 8, 20


@contextlib.contextmanager
def held_to(share, pid):
    """A process with its threads in a cgroup that gets this share of a core."""
    if (CPU / "cpu.cfs_quota_us").exists():
        home, quota = CPU, ("cpu.cfs_quota_us", f"{share * PERIOD_MICROS:.0f}", "cpu.cfs_period_us", str(PERIOD_MICROS))
    else:
        home, quota = pathlib.Path("/sys/fs/cgroup"), ("cpu.max", f"{share * PERIOD_MICROS:.0f} {PERIOD_MICROS}")
    group = home / f"viaduct-{os.getpid()}"
    group.mkdir()
    try:
        if len(quota) == 4:
            (group / quota[2]).write_text(quota[3])
        (group / quota[0]).write_text(quota[1])
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (home / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def report(lab, load, seconds=60):
    load.wait(seconds)
    return json.loads((lab.path / "calls.json").read_text())


def twice():
    """2 × capacity: goodput at least 90 % of it, no emergency call refused, 99.9 % of the calls hung up."""
    with Lab() as lab:
        lab.start_viaduct()
        processes = answerers(lab)
        options = ["--hold", "300ms", "--timeout", "5s", "--drain", "10s"]
        with held_to(SHARE, lab.viaduct.pid):
            # Up in steps until calls are lost: batches grow with the load, so that its end cannot be reckoned.
            capacity, rate = 0, 500
            while True:
                calm = report(lab, generator(lab, *options, "--rate", round(rate), "--duration", "3s"))
                if calm["failed"] or rate > 20_000:
                    break
                capacity, rate = rate, 1.3 * rate
            check(capacity, f"{calm['failed']} of {calm['offered']} lost at {rate:.0f}/s: {calm['failures']}")
            load = generator(lab, *options, "--rate", round(2 * capacity), "--duration", f"{SECONDS}s")
            lab.run("client", ["sipp", *scenario("uac_sos"), "-i", lab.client, "-p", "5090", "-m", SOS_RATE * SECONDS, "-r", SOS_RATE,
                               "-nostdin", "-recv_timeout", "20000", "-buff_size", BUFFER, "-trace_stat", "-stf", "sos_.csv", "-fd", "1",
                               f"{lab.vip}:5060"], 90)
            loaded = report(lab, load)
        for process in processes:
            lab.end(process)
        sos = statistics(lab.path, "sos")
        late = sum(count for why, count in loaded["failures"].items() if "bye" in why.lower())
        goodput = loaded["answered"] / SECONDS
        text = (f"{capacity:.0f} calls/s are the most; offered twice that, {goodput:.0f} answered, "
                f"{loaded['failures']}, sos {sos['SuccessfulCall(C)']} of {sos['TotalCallCreated']}, drops {lab.drops()}")
        told = sum(count for why, count in loaded["failures"].items() if why.endswith("_503"))
        check(told >= 0.9 * loaded["failed"] > 0, f"not refused, but left to time out: {text}")
        check(int(sos["FailedCall(C)"]) == 0, f"emergency calls lost: {text}")
        check(goodput >= 0.9 * capacity, f"too few: {text}")
        check(late <= loaded["answered"] / 1000, f"{late} calls could not be hung up: {text}")
        return text


Lab.stateful = True
if __name__ == "__main__":
    raise SystemExit(main({"twice": twice}))
