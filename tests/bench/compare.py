"""Messages a second on one core: rings alone, viaduct, and what users run today, in one run."""

import statistics
import time

import contestants
from wire import CLIENTS_MAC, SERVERS, check, run_time



# What is counted where; in dialogs only those whose INVITE went that way.
TRAFFIC = {
    "requests": ("requests",), "responses": ("responses",), "in dialog": ("requests",),
    "mixed": ("requests", "responses"),
}
STATIONS = ("--count-at", ",".join([*SERVERS, CLIENTS_MAC]))
# Share of messages that may be lost where next to none should be.
LOSS_MAX = 0.01
# Messages recorded of each kind.
RECORDED = 100_000


def record(lab, viaduct, count):
    """Has viaduct forward requests; responses and requests inside dialogs made of them go to files."""
    process = viaduct.start(lab)
    try:
        report = lab.flood(*STATIONS, "--frames", count, "--responses-to", lab.path / "responses.pcap",
                           "--in-dialog-to", lab.path / "in-dialog.pcap", seconds=30, warm_up=0)
    finally:
        lab.end(process)
        lab.processes.remove(process)
    check(report["recorded_responses"] > 0.9 * count, f"of {count} requests came back: {report['recorded_responses']}")
    return report["recorded_responses"], report["recorded_in_dialog"]


def options_of(lab, traffic):
    """What the flood sends."""
    responses, in_dialog = lab.path / "responses.pcap", lab.path / "in-dialog.pcap"
    return {
        "requests": [], "responses": ["--replay", responses], "in dialog": ["--replay", in_dialog],
        "mixed": ["--with-requests", "--replay", f"{responses},{in_dialog},{responses}"],
    }[traffic]


def one(lab, contestant, traffic, seconds, rate=None, warm_up=0.5, sink="native"):
    """One run of a contestant under one flood."""
    process = contestant.start(lab)
    try:
        began, before = time.monotonic(), run_time(process.pid)
        report = lab.flood(*STATIONS, "--count-by", sink, *options_of(lab, traffic), seconds=seconds, rate=rate, warm_up=warm_up)
        cpu, elapsed = run_time(process.pid) - before, time.monotonic() - began
        drops = contestant.drops(lab)
    finally:
        lab.end(process)
        lab.processes.remove(process)
    window = report["window"]
    forwarded = sum(window[kind] for kind in TRAFFIC[traffic])
    check(forwarded > 0, f"{contestant.name}: nothing came back: {report}\n{drops}\n{lab.log(contestant.log)}")
    others = sum(window[kind] for kind in ("requests", "responses", "others")) - forwarded
    check(not others, f"{contestant.name}: more came back than {traffic}: {report}")
    shares = [station["requests"] for station in report["stations"] if station["mac"] in SERVERS]
    if contestant.chooses and traffic == "requests":
        check(min(shares) > 0.9 * max(shares), f"{contestant.name}: the servers' shares differ: {shares}")
    return {
        "contestant": contestant.name, "traffic": traffic, "offered_mps": round(window["sent_per_second"]),
        "forwarded_mps": round(forwarded / window["seconds"]), "lost": round(report["loss"], 5),
        # The core's share, the kernel's sending included: that is done in the system calls.
        "core": round(cpu / elapsed, 3), "ns_per_message": round(1e9 * cpu / max(report["returned"], 1)),
        "servers": shares, "drops": drops,
    }


def show(row):
    """A line of the table."""
    name = f"{row['contestant']} {row['note']}".strip()
    print(f"  {name:<18} {row['traffic']:<10} {row['offered_mps']:>10,} {row['forwarded_mps']:>11,}"
          f" {100 * row['lost']:>7.2f} % {100 * row['core']:>5.0f} % {row['ns_per_message']:>8,}"
          f"{'  ' + str(row['drops']) if row['drops'] else ''}", flush=True)


def header():
    """The table's first line."""
    print(f"  {'':<18} {'':<10} {'offered/s':>10} {'forwarded/s':>11} {'lost':>9} {'core':>7} {'ns each':>8}")


class Comparison:
    """All runs of one comparison, in a lab that lives as long."""

    def __init__(self, lab, seconds):
        self.lab, self.seconds, self.rows, self.round, self.name = lab, seconds, [], 0, ""

    def run(self, contestant, traffic="requests", rates=None):
        """Runs a contestant at each of its rates; all rows are kept."""
        for rate in rates or contestant.rates:
            row = {"round": self.round, "note": self.name, **one(self.lab, contestant, traffic, self.seconds, rate)}
            self.rows.append(row)
            show(row)

    def best(self, name, traffic="requests"):
        """What a contestant forwarded, by round: the best of its rates."""
        found = {}
        for row in self.rows:
            if (row["contestant"], row["traffic"], row["note"]) == (name, traffic, ""):
                found[row["round"]] = max(found.get(row["round"], 0), row["forwarded_mps"])
        return found

    def median(self, name, traffic="requests"):
        """Median over the rounds; None without a run."""
        found = self.best(name, traffic).values()
        return statistics.median(found) if found else None

    def ratio(self, name, to, traffic="requests"):
        """Round by round: what slows the machine for a while slows both."""
        ours, theirs = self.best(name, traffic), self.best(to, traffic)
        both = [ours[n] / theirs[n] for n in ours if n in theirs]
        return round(statistics.median(both), 4) if both else None


def rings(lab, rounds, seconds, before=None):
    """Our forwarding beside the rings alone: requests and responses apart, then mixed."""
    comparison = Comparison(lab, seconds)
    raw_c, raw, viaduct = contestants.RawC("raw-c"), contestants.Raw("raw"), contestants.Viaduct("viaduct")
    older = contestants.Viaduct("before", binary=before) if before else None
    responses, in_dialog = record(lab, viaduct, RECORDED if rounds > 1 else RECORDED // 10)
    print(f"  recorded {responses:,} responses, {in_dialog:,} requests in dialogs")
    for comparison.round in range(1, rounds + 1):
        for contestant in filter(None, (raw_c, raw, older, viaduct)):
            comparison.run(contestant)
        for traffic in list(TRAFFIC)[1:]:
            # Both directions are the goal; what follows from them needs fewer rounds.
            if traffic == "responses" or comparison.round <= 3:
                for contestant in (raw, viaduct):
                    comparison.run(contestant, traffic)
    for share in (0.5, 0.8):
        comparison.name = f"at {share:.0%}"
        # A stall of a shared machine loses some: of three runs one must be without.
        for _ in range(3):
            comparison.run(viaduct, rates=(round(share * comparison.median("viaduct")),))
            if comparison.rows[-1]["lost"] < LOSS_MAX:
                break
    return comparison


def field(lab, rounds, seconds):
    """viaduct on XDP and on sockets, and what users run today."""
    comparison = Comparison(lab, seconds)
    for comparison.round in range(1, rounds + 1):
        for contestant in (contestants.Viaduct("viaduct"), contestants.Viaduct("viaduct socket", mode="socket"),
                           contestants.Kamailio("kamailio", False), contestants.Kamailio("kamailio rr", True)):
            comparison.run(contestant)
    return comparison


def capacity(lab, seconds):
    """What viaduct forwards at most."""
    return one(lab, contestants.Viaduct("viaduct"), "requests", seconds)["forwarded_mps"]


def lost_nothing(comparison):
    """A fact that holds on any machine: at half of its own capacity, next to nothing is lost."""
    rows = [row for row in comparison.rows if row["note"] == "at 50%"]
    check(min(row["lost"] for row in rows) < LOSS_MAX, f"lost at half of its own capacity: {rows}")


def figures_of_rings(comparison):
    median, ratio = comparison.median, comparison.ratio
    figures = {
        "raw_c_mps": median("raw-c"), "raw_afxdp_mps": median("raw"), "viaduct_xdp_stateless_mps": median("viaduct"),
        "raw_of_raw_c": ratio("raw", "raw-c"), "ratio": ratio("viaduct", "raw"),
        "ratio_responses": ratio("viaduct", "raw", "responses"),
        "ratio_in_dialog": ratio("viaduct", "raw", "in dialog"), "ratio_mixed": ratio("viaduct", "raw", "mixed"),
        "viaduct_xdp_responses_mps": median("viaduct", "responses"),
        "viaduct_xdp_in_dialog_mps": median("viaduct", "in dialog"), "viaduct_xdp_mixed_mps": median("viaduct", "mixed"),
        "to_before": ratio("viaduct", "before"),
    }
    return figures


def figures_of_field(comparison):
    median, ratio = comparison.median, comparison.ratio
    return {
        "viaduct_socket_stateless_mps": median("viaduct socket"), "kamailio_stateless_mps": median("kamailio"),
        "kamailio_record_route_mps": median("kamailio rr"),
        "to_kamailio": ratio("viaduct", "kamailio"), "socket_to_kamailio": ratio("viaduct socket", "kamailio"),
        "to_kamailio_record_route": ratio("viaduct", "kamailio rr"),
        "socket_to_kamailio_record_route": ratio("viaduct socket", "kamailio rr"),
    }


GOALS = (
    ("raw_of_raw_c", 0.95, "raw, of a plain C forwarder"), ("ratio", 0.70, "requests, of raw"),
    ("ratio_responses", 0.70, "responses, of raw"), ("ratio_in_dialog", None, "requests in dialogs, of raw"),
    ("ratio_mixed", None, "mixed, of raw"), ("to_before", None, "of the older binary"),
    ("to_kamailio", 20, "times Kamailio that does not record its route"),
    ("socket_to_kamailio", 4, "times the same, on sockets"),
    ("to_kamailio_record_route", 20, "times Kamailio that records its route, as viaduct does"),
    ("socket_to_kamailio_record_route", 4, "times the same, on sockets"),
)


def show_figures(figures):
    """The ratios beside their goals."""
    for name, goal, text in GOALS:
        if figures.get(name) is not None:
            verdict = "" if goal is None else f" (goal {goal}: {'reached' if figures[name] >= goal else 'MISSED'})"
            print(f"bench: {figures[name]:6.2f} {text}{verdict}")
