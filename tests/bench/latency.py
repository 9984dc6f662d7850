"""Added latency: what a message takes through viaduct, less what it takes through the rings alone.

The flood writes the time into each message, the sink reads it from what comes back, both in the
kernel and by one clock. The time holds the whole way: the flood's batch, two veths, the receiving
worker. The plain C forwarder, which spins, is taken at the same load; the difference is what viaduct
adds. Loads are shares of viaduct's own capacity.
"""

import contestants
from compare import STATIONS
from wire import check

LOADS = (0.1, 0.5, 0.9)
PERCENTILES = ("p50_us", "p99_us", "p999_us")


def contestants_of():
    """The rings alone, and viaduct by what a worker does that has no work."""
    return [contestants.RawC("raw-c"), contestants.Raw("raw"), contestants.Viaduct("viaduct"),
            contestants.Viaduct("viaduct spin", workers='idle = "spin"')]


def one(lab, contestant, rate, seconds):
    """Percentiles of one contestant at one load."""
    process = contestant.start(lab)
    try:
        report = lab.flood(*STATIONS, "--count-by", "native", "--latency", seconds=seconds, rate=rate)
    finally:
        lab.end(process)
        lab.processes.remove(process)
    check(report["latency"]["count"] > 0, f"{contestant.name}: nothing came back: {report}")
    return {"lost": round(report["loss"], 5), "offered_mps": round(report["window"]["sent_per_second"]),
            **{name: round(report["latency"][name], 1) for name in (*PERCENTILES, "max_us")}}


def measure(lab, capacity, rounds, seconds, loads=LOADS):
    """Rows of all contestants at all loads."""
    rows = []
    print(f"  {'':<18} {'load':>6} {'offered/s':>10} {'lost':>9} {'p50 µs':>10} {'p99 µs':>10} {'p99.9 µs':>10}"
          f" {'added p50':>10} {'p99':>8} {'p99.9':>8}")
    for number in range(1, rounds + 1):
        for load in loads:
            base = None
            for contestant in contestants_of():
                row = {"round": number, "contestant": contestant.name, "load": load,
                       **one(lab, contestant, round(load * capacity), seconds)}
                base = base or row
                for name in PERCENTILES:
                    row[f"added_{name}"] = round(row[name] - base[name], 1)
                rows.append(row)
                show(row)
    return rows


def show(row):
    """A line of the table."""
    print(f"  {row['contestant']:<18} {row['load']:>6.0%} {row['offered_mps']:>10,} {100 * row['lost']:>7.2f} %"
          f" {row['p50_us']:>10,.1f} {row['p99_us']:>10,.1f} {row['p999_us']:>10,.1f}"
          f" {row['added_p50_us']:>10,.1f} {row['added_p99_us']:>8,.1f} {row['added_p999_us']:>8,.1f}", flush=True)
