#!/usr/bin/env python3
"""The HTML report of `viaduct generate`, opened in a browser.

Two runs over loopback, one of which fails calls, make two reports; a headless Chromium reads them. The DOM
holds every heading, the plots as SVG paths and the totals of the JSON report; the console is silent; nothing but the
file itself is fetched. A page that does fetch something, and complains, shows that both would be seen.

    python3 tests/report/page.py [FOLDER]     FOLDER keeps the pages and their pictures

VIADUCT_BINARY names the binary; without it the one in target/release.
"""

import html.parser
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
VIADUCT = os.environ.get("VIADUCT_BINARY", str(ROOT / "target/release/viaduct"))
BROWSER = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
           "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--timeout=20000"]
HEADINGS = ["Offered and completed", "Set-up time", "Failures by cause", "In progress", "Totals", "Latency",
            "Requests sent", "Responses received", "Generator", "How it was made"]


def check(condition, message):
    if not condition:
        raise SystemExit(f"report: {message}")


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        return udp.getsockname()[1]


def generate(folder, name, answer, load):
    """One run; the report as JSON and the path of the page."""
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen([VIADUCT, "answer", "--listen", address, "--name", "server1", "--quiet", *answer],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        # Its first line says that it listens.
        server.stderr.readline()
        page, data = folder / f"{name}.html", folder / f"{name}.json"
        subprocess.run([VIADUCT, "generate", "call", "--target", f"sip:a&b@{address}", "--quiet",
                        "--max-failed", "1000000", "--html", page, "--json", data, "--csv", folder / f"{name}.csv", *load],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
        return json.loads(data.read_text()), page
    finally:
        server.terminate()
        server.wait(10)


class Dom(html.parser.HTMLParser):
    """What the browser made of the page: texts by element, paths of plots, elements."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.paths, self.tags, self.plots = [], {}, [], set(), 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.open.append(tag)
        self.plots += tag == "svg" and attrs.get("class") == "plot" and attrs.get("role") == "img"
        if tag == "path":
            self.paths.append((attrs.get("class", ""), attrs.get("d", "")))
        if tag in ("meta", "br"):
            self.open.pop()

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts.setdefault(tag, []).append(data)


def browse(folder, page):
    """The DOM, what the console said, and what was fetched for the page."""
    log = folder / "net.json"
    log.unlink(missing_ok=True)
    result = subprocess.run([*BROWSER, f"--user-data-dir={folder}/profile", f"--log-net-log={log}", "--dump-dom", page.as_uri()],
                            capture_output=True, text=True, timeout=90)
    check(result.returncode == 0, f"the browser failed: {result.stderr[-500:]}")
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    text = log.read_text()
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:
        # Chromium may end before it has closed the list.
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
    asked = ((event.get("params") or {}) for event in events)
    # The browser's own business has no origin: "not an origin".
    fetched = {params["url"] for params in asked
               if "url" in params and "initiator" in params and params["initiator"] != "not an origin"}
    return result.stdout, console, {url for url in fetched if not url.startswith("file:")}


def picture(folder, page, name, *options):
    target = folder / f"{name}.png"
    subprocess.run([*BROWSER, f"--user-data-dir={folder}/profile", "--window-size=1100,2300", "--hide-scrollbars", *options,
                    f"--screenshot={target}", page.as_uri()], check=True, capture_output=True, timeout=90)
    check(target.stat().st_size > 20_000, f"{target} shows nothing")


def judge(folder, report, page):
    text, console, fetched = browse(folder, page)
    check(not console, f"the console says: {console}")
    check(not fetched, f"fetched: {fetched}")
    dom = Dom(text)
    check(not dom.tags & {"script", "img", "link", "iframe", "object"}, f"elements {dom.tags}")
    headings = "".join(dom.texts["h2"])
    for heading in HEADINGS + (["Servers"] if report["servers"] else []):
        check(heading in headings, f"no heading {heading!r}")
    cards = "".join(dom.texts["dd"])
    for key in ("offered", "answered", "failed"):
        check(f"{report[key]:,}" in cards, f"{key} {report[key]} is not in {cards}")
    # Axes and lines of each plot; a line has a point for each second.
    check(dom.plots >= 3, f"{dom.plots} plots")
    lines = [d for kind, d in dom.paths if kind.startswith("line") and d.count("L") >= 2]
    check(len(lines) >= 3, f"lines with points: {len(lines)}")
    check(all(re.fullmatch(r"[MLHVZvh0-9. -]*", d) for _, d in dom.paths), "a path that is none")
    tables = " ".join(dom.texts["td"])
    for kind in ("requests_sent", "responses_received"):
        for name, count in report[kind].items():
            check(f"{count:,}" in tables, f"{kind} {name} {count} is in no table")
    for cause in report["failures"]:
        check(cause in "".join(dom.texts["th"]), f"{cause} is in no table")
    return dom


def main():
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else made).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        good, page = generate(folder, "good", [], ["--rate", "400", "--duration", "5s", "--hold", "300"])
        check(good["failed"] == 0, f"{good['failed']} calls failed")
        dom = judge(folder, good, page)
        check("No call failed" in "".join(dom.texts["strong"]), "no verdict")
        picture(folder, page, "good")
        picture(folder, page, "dark", "--blink-settings=preferredColorScheme=0")
        bad, page = generate(folder, "bad", ["--reject", "486"], ["--rate", "200", "--duration", "4s", "--auth", "alice:secret"])
        check(bad["failed"] == 800, f"{bad['failed']} calls failed")
        dom = judge(folder, bad, page)
        check(any(kind.startswith("area") and d for kind, d in dom.paths), "failures are not drawn")
        check("secret" not in page.read_text(), "the password is in the page")
        picture(folder, page, "bad")
        # The judges see what they judge.
        control = folder / "control.html"
        control.write_text("<!DOCTYPE html><img src='http://127.0.0.1:9/x.png'><script>console.error('seen')</script>")
        _, console, fetched = browse(folder, control)
        check(console and fetched, f"the control page was not seen: {console} {fetched}")
        print("report: two pages read by a browser: headings, plots, totals; console silent, nothing fetched")


if __name__ == "__main__":
    main()
