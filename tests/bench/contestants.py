"""Who is measured on the wire, and how each is configured and started."""

import hashlib
import subprocess
import time

from wire import (BALANCER_CORE, METRICS_PORT, ROOT, SERVERS, VIADUCT, VIP, check)
import metrics_page

FORWARDER = ROOT / "target/raw_forwarder"

VIADUCT_CONFIG = f"""
[secret]
hex = "{hashlib.sha256(b'bench').hexdigest()}"
[workers]
count = 1
cores = [{BALANCER_CORE}]
{{workers}}
[datapath]
mode = "{{mode}}"
[metrics]
address = "127.0.0.1:{METRICS_PORT}"
[[listeners]]
name = "clients"
address = "{VIP}:5060"
stateful = []
[[pools]]
name = "farm"
""" + "".join(f'[[pools.servers]]\nname = "server{n}"\naddress = "{address}:5060"\n'
              for n, address in enumerate(SERVERS.values(), 1))

# As an operator would write it: chooses by Call-ID, keeps nothing; with or without Record-Route.
KAMAILIO_CONFIG = """#!KAMAILIO
children={children}
auto_aliases=no
dns=no
rev_dns=no
disable_tcp=yes
log_stderror=yes
debug=0
listen=udp:{vip}:5060
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "dispatcher.so"
modparam("dispatcher", "list_file", "{path}/dispatcher.list")
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (has_totag()) {{
    if (loose_route()) {{ forward(); exit; }}
    sl_send_reply("404", "Not here");
    exit;
  }}
{record_route}  if (!ds_select_dst("1", "0")) {{ sl_send_reply("503", "No server"); exit; }}
  forward();
}}
"""


class Contestant:
    """One balancer. `rates`: messages a second to offer, the best counts; None is all that goes."""

    rates = (None,)
    log = "contestant.log"
    # Whether it chooses among servers, so that their shares can be compared.
    chooses = True

    def __init__(self, name):
        self.name = name

    def start(self, lab):
        """Starts it and waits until it serves; its process."""
        process = lab.start(self.command(lab), self.log)
        lab.wait_for(lambda: self.is_ready(lab), process, self.log)
        return process

    def is_ready(self, lab):
        return lab.has_xdp()

    def drops(self, lab):
        """Its drops by reason, as far as it counts them."""
        return {}


class RawC(Contestant):
    """A plain C program over libxdp, compiled here."""

    chooses = False

    def command(self, _):
        return [FORWARDER, "eth0", next(iter(SERVERS))]

    @staticmethod
    def compile():
        source = ROOT / "tests/bench/raw_forwarder.c"
        FORWARDER.parent.mkdir(exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", FORWARDER, source, "-lxdp", "-lbpf"],
                       check=True)


class Raw(Contestant):
    """Our rings, and a handler that writes two MAC addresses."""

    chooses = False

    def command(self, _):
        return [VIADUCT, "generate", "raw", "--interface", "eth0", "--listen", f"{VIP}:5060",
                "--target-mac", next(iter(SERVERS)), "--core", BALANCER_CORE]


class Viaduct(Contestant):
    """`viaduct run`: one listener, three servers, Record-Route, pins and counters."""

    def __init__(self, name, mode="native", binary=None, workers=""):
        super().__init__(name)
        self.mode, self.binary, self.workers = mode, binary or VIADUCT, workers
        if mode == "socket":
            # More than it takes costs it the receive queue's lock: offer around its capacity.
            self.rates = (120_000, 180_000, 250_000)

    def command(self, lab):
        file = lab.path / f"{self.name.replace(' ', '-')}.toml"
        file.write_text(VIADUCT_CONFIG.format(mode=self.mode, workers=self.workers))
        return [self.binary, "run", "--config", file]

    def is_ready(self, lab):
        lab.metrics()
        return self.mode == "socket" or lab.has_xdp()

    def drops(self, lab):
        return metrics_page.by_label(lab.metrics(), "drops_total", "reason")


class Kamailio(Contestant):
    """Debian's Kamailio with its dispatcher, forward() without transactions. One process: more of
    them on one core are slower. record_route() is what viaduct does too, and costs it dear."""

    def __init__(self, name, records_route, children=1):
        super().__init__(name)
        self.children, self.records_route = children, records_route
        self.rates = (15_000, 40_000) if records_route else (45_000, 60_000, 80_000)

    def command(self, lab):
        (lab.path / "dispatcher.list").write_text("".join(f"1 sip:{address}:5060\n" for address in SERVERS.values()))
        (lab.path / "kamailio.cfg").write_text(KAMAILIO_CONFIG.format(
            vip=VIP, path=lab.path, children=self.children, record_route="  record_route();\n" if self.records_route else ""))
        return ["kamailio", "-DD", "-E", "-m", "256", "-M", "16", "-f", lab.path / "kamailio.cfg",
                "-P", lab.path / "kamailio.pid", "-Y", lab.path]

    def start(self, lab):
        process = lab.start(self.command(lab), self.log)
        time.sleep(1.5)
        check(process.poll() is None, f"Kamailio has ended:\n{lab.log(self.log)}")
        return process
