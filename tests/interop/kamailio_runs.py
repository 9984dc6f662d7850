"""Proxies behind viaduct: Kamailio as the farm, plain and with topology hiding; a second viaduct.

    client ── viaduct ── Kamailio on server1..3, port 5060 ── callee beside it, port 5070
    client ── viaduct ── viaduct ── callee on server1..3, port 5060
"""

import contextlib
import re
import shutil

from lab import METRICS_PORT, Lab, check, main
from oracle import oracle
from sipp_runs import BUFFER, SCENARIOS, statistics
from ua import Ua, answer, expect, nothing, transact

CALLEE = 5070
SIPP_CALLS, SIPP_RATE = 300, 100

PROXY = """#!KAMAILIO
children=2
auto_aliases=no
dns=no
rev_dns=no
tcp_accept_no_cl=no
disable_tcp=yes
log_stderror=yes
debug=1
listen=udp:{host}:5060
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
{more}
modparam("tm", "fr_timer", 5000)
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  if (has_totag()) {{
    if (loose_route()) {{ t_relay(); exit; }}
    if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
    sl_send_reply("404", "Not here");
    exit;
  }}
  t_check_trans();
  {route}
}}
"""
RELAY = """record_route();
  $du = "sip:{host}:{callee}";
  t_relay();"""
TOPOS = """loadmodule "db_text.so"
loadmodule "topos.so"
modparam("topos", "storage", "db")
modparam("topos", "db_url", "text://{tables}")
"""


def tables(lab, n):
    """The tables of topos on a server."""
    folder = lab.path / f"tables{n}"
    folder.mkdir()
    for name in ("version", "topos_d", "topos_t"):
        shutil.copy(f"/usr/share/kamailio/dbtext/kamailio/{name}", folder)
    for name in ("topos_d", "topos_t"):
        # The shipped columns refuse the empty values that topos writes; a failed write leaves the
        # message as it was.
        columns, rows = (folder / name).read_text().split("\n", 1)
        columns = re.sub(r"(\s|^)(?!id\()(\w+)\((string|int)\)", r"\1\2(\3,null)", columns)
        (folder / name).write_text(f"{columns}\n{rows}")
    return folder


def kamailio(lab, n, more="", route=RELAY):
    """Starts Kamailio on a server and waits until it answers."""
    config = lab.path / f"kamailio{n}.cfg"
    host = lab.bracket(lab.server(n))
    config.write_text(PROXY.format(host=host, more=more, route=route.format(host=host, callee=CALLEE)))
    process = lab.popen(f"server{n}", ["kamailio", "-DD", "-E", "-f", config, "-P", lab.path / f"kamailio{n}.pid",
                                       "-Y", lab.path], f"kamailio{n}.log")
    probe = Ua(lab, f"server{n}", lab.server(n), 5099)
    try:
        for _ in range(50):
            check(process.poll() is None, f"Kamailio has ended:\n{lab.log(f'kamailio{n}.log')}")
            out = probe.dialog(f"sip:probe@{lab.bracket(lab.server(n))}:5060")
            with contextlib.suppress(OSError):
                out.remote_tag = "probe"  # in-dialog without a route: 404 at once
                out.send("OPTIONS")
                probe.socket.settimeout(0.2)
                probe.socket.recv(65535)
                return
        check(False, f"Kamailio does not answer:\n{lab.log(f'kamailio{n}.log')}")
    finally:
        probe.close()


@contextlib.contextmanager
def farm(family, arms, topos):
    with Lab(family=family, arms=arms) as lab:
        lab.start_viaduct()
        for n in (1, 2, 3):
            kamailio(lab, n, TOPOS.format(tables=tables(lab, n)) if topos else "")
        yield lab


def calls(lab, client, callees, vias):
    """Calls of every kind over whatever stands between, with so many Vias at the callee."""
    used = set()
    for n in range(8):
        out = client.dialog(lab.uri())
        out.send("INVITE")
        at, invite = expect(callees, "INVITE")
        used.add(at.namespace)
        check(len(invite.all("via")) == vias, f"{len(invite.all('via'))} Vias at the callee")
        out, back = answer(out, at, invite)
        transact(out, back, "UPDATE")
        transact(back, out, "UPDATE")
        transact(back, out, "INFO")
        transact(*((out, back) if n % 2 else (back, out)), "BYE")
    check(len(used) > 1, f"all calls at {used}")
    for n in range(4):
        out = client.dialog(lab.uri())
        out.send("INVITE")
        at, invite = expect(callees, "INVITE")
        at.respond(invite, 180)
        expect(client, 180)
        if n % 2:
            out.cancel()
            at2, cancel = expect(callees, "CANCEL")
            check(at2 is at and cancel.branch == invite.branch, "CANCEL elsewhere")
            at.respond(cancel, 200)
            expect(client, 200)  # Kamailio's, or the callee's
        at.respond(invite, 487 if n % 2 else 486)
        out.ack(expect(client, 487 if n % 2 else 486)[1])
        check(expect(at, "ACK")[1].branch == invite.branch, "ACK with another branch")
    nothing([client, *callees], 0.7)  # T1 has passed: an unacknowledged 487 would be here again
    return "8 calls, 4 without an answer"


def kamailio_calls(family, arms, topos):
    def run():
        with farm(family, arms, topos) as lab:
            with oracle(lab) as judge:
                client = Ua(lab, "client", lab.client)
                callees = [Ua(lab, f"server{n}", lab.server(n), CALLEE, proxy=None) for n in (1, 2, 3)]
                try:
                    text = calls(lab, client, callees, 1 if topos else 3)
                finally:
                    for agent in (client, *callees):
                        agent.close()
            lab.conserved()
            check(not lab.drops(), f"drops {lab.drops()}")
            return f"{text}; {judge}"
    return run


def sipp_calls(lab, port):
    """SIPp at both ends, either hanging up."""
    good = 0
    for uac, uas in (("uac_record_route", "uas_record_route"), ("uac_server_bye", "uas_server_bye")):
        answerers = [lab.popen(f"server{n}", ["sipp", "-sf", SCENARIOS / f"{uas}.xml", "-i", lab.bracket(lab.server(n)), "-p", port,
                                              "-nostdin", "-buff_size", BUFFER], f"{uas}{n}.log") for n in (1, 2, 3)]
        code, _ = lab.run("client", ["sipp", "-sf", SCENARIOS / f"{uac}.xml", "-s", "bob", "-i", lab.bracket(lab.client), "-p", "5060",
                                     "-m", SIPP_CALLS, "-r", SIPP_RATE, "-nostdin", "-recv_timeout", "10000", "-buff_size", BUFFER,
                                     "-trace_stat", "-stf", f"{uac}_.csv", "-fd", "1", "-trace_err", "-error_file", "uac.err",
                                     f"{lab.bracket(lab.vip)}:5060"], 60)
        row = statistics(lab.path, uac)
        check(code == 0 and int(row["SuccessfulCall(C)"]) == SIPP_CALLS,
              f"exit {code}, {row['SuccessfulCall(C)']} good, {row['FailedCall(C)']} failed\n{lab.log('uac.err', 40)[:1900]}\n"
              f"drops {lab.drops()}")
        good += SIPP_CALLS
        for process in answerers:
            lab.end(process)
    return good


def kamailio_sipp(arms):
    def run():
        with farm(4, arms, False) as lab, oracle(lab) as judge:
            good = sipp_calls(lab, CALLEE)
            lab.conserved()
        return f"{good} calls; {judge}"
    return run


def series(family):
    """Two viaducts in series: Python calls of every kind, then SIPp."""
    def run():
        with Lab(family=family) as lab:
            inner = "198.18.0.2" if family == 4 else "2001:db8::2"
            lab.add("lb2", "br-out", "198.18.0.2/16", "2001:db8::2/64")
            lab.balancers["lb2"] = 1
            text = lab.config()
            pools = text.index("[[pools]]")
            outer = text[:pools] + (f'[[pools]]\nname = "inner"\n[[pools.servers]]\nname = "inner"\n'
                                    f'address = "{lab.bracket(inner)}:5060"\n')
            behind = text.replace(f'{lab.bracket(lab.vip)}:5060"\n', f'{lab.bracket(inner)}:5060"\n', 1).replace(
                f"{lab.path}/secret", f"{lab.path}/secret2")
            check(outer != text and str(METRICS_PORT) in behind, "the configurations are not what they should be")
            lab.start_viaduct(outer)
            lab.serve("lb2", behind, "inner")
            with oracle(lab) as judge:
                client = Ua(lab, "client", lab.client)
                callees = [Ua(lab, f"server{n}", lab.server(n)) for n in (1, 2, 3)]
                try:
                    text = calls(lab, client, callees, 3)
                finally:
                    for agent in (client, *callees):
                        agent.close()
                good = sipp_calls(lab, 5060)
            lab.conserved()
            check(not lab.drops(), f"drops {lab.drops()}")
            check(not lab.total("drops_total", "lb2"), "the inner one dropped something")
            return f"{text}, {good} by SIPp; {judge}"
    return run


RUNS = {
    "kamailio-1arm": kamailio_calls(4, 1, False), "kamailio-2arm": kamailio_calls(4, 2, False),
    "kamailio-ipv6": kamailio_calls(6, 1, False),
    "kamailio-topos-1arm": kamailio_calls(4, 1, True), "kamailio-topos-2arm": kamailio_calls(4, 2, True),
    "kamailio-sipp": kamailio_sipp(1), "series-ipv4": series(4), "series-ipv6": series(6),
}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
