"""The machine that a measurement runs on: what it is, and a place in front of what else it does."""

import os
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def go_first():
    """Puts this process, and what it starts, in front of what else the machine may be doing."""
    os.setsid()
    os.nice(-15)
    # Where the scheduler groups processes by session, niceness counts inside a session only.
    autogroup = pathlib.Path("/proc/self/autogroup")
    if autogroup.exists():
        autogroup.write_text("-15")


def describe():
    """What the numbers were measured on."""
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT,
                            capture_output=True, text=True, check=False).stdout.strip()
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "device": "veth", "datapath": "xdp-native-copy", "commit": commit}
