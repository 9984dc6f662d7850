"""Results as files: every run in CSV with the machine it was made on, all figures in one JSON, and
the README's tables, which are made from the CSV and held against it."""

import csv
import json
import pathlib
import statistics
import subprocess

from wire import ROOT, machine

RESULTS = ROOT / "benches/results"
COLUMNS = {
    "rings": ("round", "contestant", "note", "traffic", "offered_mps", "forwarded_mps", "lost", "core", "ns_per_message"),
    "latency": ("round", "contestant", "load", "offered_mps", "lost", "p50_us", "p99_us", "p999_us", "max_us",
                "added_p50_us", "added_p99_us", "added_p999_us"),
    "calls": ("what", "rate", "failed", "retransmissions", "setup_p99_ms", "micros_core", "micros_tasks", "core"),
}
COLUMNS["field"] = COLUMNS["rings"]


def versions():
    """What the contestants are made of."""
    def of(package):
        done = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=False)
        return done.stdout.strip() or "none"
    memory = next((line for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")), "")
    return {**machine.describe(), "memory": f"{int(memory.split()[1]) >> 20} GiB", "kamailio": of("kamailio"), "libxdp": of("libxdp1")}


def write_csv(part, rows, folder):
    """The runs of a part as they were."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{part}.csv", "w", newline="") as output:
        for name, value in versions().items():
            output.write(f"# {name}: {value}\n")
        table = csv.DictWriter(output, COLUMNS[part], extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def read_csv(part, folder=RESULTS):
    """Rows of a part, numbers as numbers; none if it was never kept."""
    file = folder / f"{part}.csv"
    if not file.exists():
        return []
    def number(text):
        try:
            return float(text)
        except ValueError:
            return text
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return [{name: number(text) for name, text in row.items()} for row in csv.DictReader(lines)]


def write_json(report, file):
    """Everything."""
    file.write_text(json.dumps(report, indent=2) + "\n")


# ---- the README's tables -------------------------------------------------------------------------

README = ROOT / "README.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
NAMES = {
    "raw-c": "plain C forwarder (libxdp)", "raw": "raw: our rings, MAC addresses only", "viaduct": "viaduct",
    "viaduct socket": "viaduct on kernel sockets", "kamailio": "Kamailio: dispatcher, `forward()`", "kamailio rr": "Kamailio: dispatcher, `record_route()`, `forward()`",
    "viaduct spin": "viaduct, `idle = \"spin\"`",
}


def best(rows, contestant, traffic):
    """The best of a contestant's offered rates, by round."""
    found = {}
    for row in rows:
        if (row["contestant"], row["traffic"], row["note"]) == (contestant, traffic, ""):
            found[row["round"]] = max(row, found.get(row["round"], row), key=lambda r: r["forwarded_mps"])
    return found


def throughput_lines(rows, order, base):
    """A line for each contestant and traffic: range, median, ratio to the base in the same round."""
    for traffic, contestant in order:
        found = best(rows, contestant, traffic)
        if not found:
            continue
        rates = [row["forwarded_mps"] for row in found.values()]
        others = best(rows, base, traffic)
        ratios = [row["forwarded_mps"] / others[n]["forwarded_mps"] for n, row in found.items() if n in others]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        nanoseconds = statistics.median(row["ns_per_message"] for row in found.values())
        yield (f"| {NAMES[contestant]} | {traffic} | {thousands(min(rates))} – {thousands(max(rates))} |"
               f" {thousands(statistics.median(rates))} | {ratio} | {nanoseconds:,.0f} |")


def thousands(rate):
    """A rate as precise as it is."""
    return f"{1000 * round(rate / 1000):,}"


def table():
    """The section between the marks."""
    lines = []
    rings = read_csv("rings")
    if rings:
        lines += ["| one core, XDP | traffic | messages/s | median | of raw | CPU ns each |", "|---|---|---|---|---|---|"]
        order = [("requests", "raw-c"), *((traffic, name) for traffic in ("requests", "responses", "in dialog", "mixed")
                                          for name in ("raw", "viaduct"))]
        lines += [*throughput_lines(rings, order, "raw"), ""]
        for row in rings:
            if row["note"]:
                lines.append(f"viaduct {row['note'].replace('%', ' %')} of its median: {thousands(row['offered_mps'])} requests/s offered,"
                             f" {100 * row['lost']:.2f} % lost.")
        lines.append("")
    field = read_csv("field")
    if field:
        lines += ["| one core | traffic | messages/s | median | times Kamailio with its route | CPU ns each |", "|---|---|---|---|---|---|"]
        order = [("requests", name) for name in ("viaduct", "viaduct socket", "kamailio", "kamailio rr")]
        lines += [*throughput_lines(field, order, "kamailio rr"), ""]
    latency = read_csv("latency")
    if latency:
        lines += ["| latency, µs, through | load | messages/s | p50 | p99 | p99.9 | p50 less the C forwarder's |", "|---|---|---|---|---|---|---|"]
        names = dict.fromkeys(row["contestant"] for row in latency)
        for name in names:
            for load in dict.fromkeys(row["load"] for row in latency):
                found = [row for row in latency if (row["contestant"], row["load"]) == (name, load)]
                middle = {key: statistics.median(row[key] for row in found) for key in
                          ("offered_mps", "p50_us", "p99_us", "p999_us", "added_p50_us")}
                label = "plain C forwarder, spinning" if name == "raw-c" else NAMES[name]
                lines.append(f"| {label} | {100 * load:.0f} % | {thousands(middle['offered_mps'])} |"
                             + "".join(f" {middle[p]:,.0f} |" for p in ("p50_us", "p99_us", "p999_us", "added_p50_us")))
        lines.append("")
    return "\n".join(lines).strip() + "\n"


def update(check):
    """Writes the README's tables, or says whether they are those of the CSV."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n{table()}{END}{after}"
    if check:
        return wanted == text
    README.write_text(wanted)
    return True
