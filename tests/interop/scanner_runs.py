"""Scanners and testers of the field against viaduct: sipsak, svmap; and who is denied hears nothing.

What viaduct says itself is never longer than what it was asked, message by message (`oracle.py`)
and per source (here): a forged source must gain nothing.
"""

import contextlib
import re
import time

from kill_runs import answerers
from lab import Lab, check, main
from oracle import oracle
from ua import Ua, expect, nothing

DENIED = {4: "198.18.0.150", 6: "2001:db8::150"}
# How sipsak is told its own address; it would look up the host's name otherwise.
SIPSAK = ["sipsak", "-H", "198.18.0.100"]


def no_amplification(judge, address):
    """The bytes that a source got, if nobody but viaduct answered."""
    asked, got = judge.traffic[address]
    check(asked > 0 and got <= asked, f"{address} sent {asked} bytes and got {got}")
    return f"{asked} bytes in, {got} out"


@contextlib.contextmanager
def farm(answering=True, **options):
    """A lab whose servers answer, or are deaf sockets, so that viaduct alone answers."""
    with Lab() as lab:
        lab.start_viaduct(lab.config(**options))
        if answering:
            answerers(lab)
            time.sleep(0.3)
            yield lab
            return
        deaf = [lab.socket(f"server{n}", lab.server(n), 5060) for n in (1, 2, 3)]
        try:
            yield lab
        finally:
            for made in deaf:
                made.close()


def traceroute():
    """sipsak -T: viaduct is hop 0 and says 483, a server is next and says 200."""
    with farm() as lab:
        with oracle(lab) as judge:
            for _ in range(5):
                code, text = lab.run("client", [*SIPSAK, "-T", "-s", lab.uri("bob")], 20)
                hops = re.findall(r"^(\d+): .*SIP/2\.0 (\d+)", text, re.M)
                check(code == 0 and [status for _, status in hops] == ["483", "200"], f"exit {code}:\n{text}")
            code, text = lab.run("client", [*SIPSAK, "-vv", "-s", f"sip:{lab.vip}:5060"], 20)
            check(code == 0 and "SIP/2.0 200" in text, f"OPTIONS to us: exit {code}\n{text}")
        check(judge.own == 6, f"{judge.own} own answers")
        lab.conserved()
        return f"5 traces; {judge}"


def flood():
    """sipsak -F, bounded: every OPTIONS is forwarded and answered by a server, or answered by us."""
    count = 2000
    with farm() as lab:
        with oracle(lab) as judge:
            code, text = lab.run("client", [*SIPSAK, "-F", "-e", count, "-s", lab.uri("bob")], 30)
            check(code == 0, f"exit {code}\n{text}")
            code, text = lab.run("client", [*SIPSAK, "-F", "-e", count, "-s", f"sip:{lab.vip}:5060"], 30)
            check(code == 0, f"exit {code}\n{text}")
            time.sleep(1)
        received, _, _ = lab.conserved()
        check(received >= 2 * count, f"{received} messages of {2 * count} arrived")
        unknown = set(lab.drops()) - {"answer_limited", "answer_limited_source", "unreachable"}
        check(not unknown, f"drops {lab.drops()}")
        return f"{judge}, drops {lab.drops()}"


def randomized():
    """sipsak -R: characters of OPTIONS are replaced at random; answered or dropped, never amplified."""
    with farm(answering=False) as lab:
        with oracle(lab, messages=False) as judge:
            for _ in range(12):
                # It gives up after what it got no answer to; how far it comes is a matter of chance.
                lab.run("client", [*SIPSAK, "-R", "-t", "12", "-D", "1", "--timer-t1=50", "-s", f"sip:{lab.vip}:5060"], 30)
        check(lab.viaduct.poll() is None, "viaduct has ended")
        received, _, _ = lab.conserved()
        answers = {labels["code"]: int(value) for name, labels, value in lab.metrics() if name == "answers_total" and value}
        check(received > 12 and answers, f"{received} messages, answers {answers}")
        return f"{received} messages, answers {answers}, drops {lab.drops()}, {no_amplification(judge, lab.client)}"


def svmap():
    """svmap finds the farm, by OPTIONS and by REGISTER; behind a deaf farm it finds nothing."""
    said = []
    for answering in (True, False):
        with farm(answering) as lab:
            with oracle(lab) as judge:
                for method in ("OPTIONS", "REGISTER"):
                    text = lab.command("client", "svmap", lab.vip, "-p", "5060", "-P", "5070", "-x", lab.client, "-m", method,
                                       seconds=40)
                    check((f"{lab.vip}:5060" in text) == answering, f"{method}: the farm answers: {answering}\n{text}")
            lab.conserved()
            said.append(f"{judge}" if answering else no_amplification(judge, lab.client))
    return "; ".join(said)


def scanner_rule():
    """A rule drops the User-Agent of svmap: it finds nothing; others are served."""
    with Lab() as lab:
        lab.start_viaduct(lab.config() + '[[routes]]\nheader = { name = "User-Agent", contains = "friendly-scanner" }\ndrop = true\n'
                          '[[routes]]\npool = "farm"\n')
        answerers(lab)
        time.sleep(0.3)
        with oracle(lab) as judge:
            for method in ("OPTIONS", "INVITE", "REGISTER"):
                text = lab.command("client", "svmap", lab.vip, "-p", "5060", "-P", "5070", "-x", lab.client, "-m", method, seconds=40)
                check(lab.vip not in text, f"{method} found:\n{text}")
            check(judge.own == 0 and not lab.total("answers_total"), "viaduct answered")
            code, text = lab.run("client", [*SIPSAK, "-s", lab.uri("bob")], 20)
            check(code == 0, f"sipsak: exit {code}\n{text}")
        lab.conserved()
        return f"drops {lab.drops()}; {judge}"


def silence(family, how, mode="native"):
    """Sources that are not served get nothing at all, by XDP and by the kernel's path."""
    def run():
        denied = DENIED[family]
        with Lab(family=family, mode=mode) as lab:
            width = 32 if family == 4 else 128
            if how == "deny":
                rule = f'deny = ["{denied}/{width}"]'
            else:
                allowed = [lab.client, *(lab.server(n) for n in (1, 2, 3))]
                rule = "allow = [" + ", ".join(f'"{address}/{width}"' for address in allowed) + "]"
            lab.start_viaduct(lab.config(listeners_extra=rule))
            with oracle(lab) as judge:
                stranger, client = Ua(lab, "client", denied), Ua(lab, "client", lab.client)
                servers = [Ua(lab, f"server{n}", lab.server(n)) for n in (1, 2, 3)]
                agents = [stranger, client, *servers]
                try:
                    for agent in (client, stranger):
                        for size in (0, 2500):
                            for uri, method, routes in ((lab.uri("bob"), "INVITE", ()),
                                                        (f"sip:{lab.bracket(lab.vip)}:5060", "OPTIONS", ()),
                                                        (lab.uri("carol"), "INVITE", ["<sip:198.18.9.9;lr>"])):
                                out = agent.dialog(uri, routes=routes)
                                agent.proxy = (lab.vip, 5060)
                                out.send(method, body=b"x" * size)
                                if agent is stranger:
                                    nothing(agents, 0.15)
                                elif uri == lab.uri("bob"):
                                    expect(servers, "INVITE")
                                else:
                                    expect(client, 200 if method == "OPTIONS" else 403)
                            # An error of our own: only for those we serve.
                            text = (f"OPTIONS sip:bob@{lab.bracket(lab.vip)} SIP/2.0\r\nVia: SIP/2.0/UDP {agent.host};branch=z9hG4bKx\r\n"
                                    f"Max-Forwards: 0\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: v{size}{agent.ip}\r\nCSeq: 1 OPTIONS\r\n"
                                    f"Content-Length: {size}\r\n\r\n{'x' * size}")
                            agent.send(text, (lab.vip, 5060))
                            if agent is stranger:
                                nothing(agents, 0.15)
                            else:
                                expect(client, 483)
                    nothing(agents)
                finally:
                    for agent in agents:
                        agent.close()
            lab.conserved()
            sent, got = judge.traffic[denied]
            check(sent > 4 * 2700 and got == 0, f"{denied} sent {sent} bytes and got {got}")
            drops = lab.drops().get("source_denied")
            check(drops == (4 if mode == "native" else 8), f"{drops} dropped on the kernel's path")
            return f"{sent} bytes in, none out; {judge}"
    return run


def denied_svmap():
    """svmap and sipsak from a denied address find nothing."""
    with farm(listeners_extra=f'deny = ["{DENIED[4]}/32"]') as lab:
        with oracle(lab) as judge:
            text = lab.command("client", "svmap", lab.vip, "-b", DENIED[4], "-p", "5060", "-P", "5070", "-x", DENIED[4], seconds=40)
            check(f"{lab.vip}:5060" not in text, f"found:\n{text}")
        asked, got = judge.traffic[DENIED[4]]
        check(asked and not got, f"{asked} bytes in, {got} out")
        return f"{asked} bytes in, none out"


RUNS = {"traceroute": traceroute, "flood": flood, "random": randomized, "svmap": svmap, "denied-svmap": denied_svmap,
        "scanner-rule": scanner_rule}
for _family in (4, 6):
    for _how in ("deny", "allow"):
        RUNS[f"silence-{_how}-ipv{_family}"] = silence(_family, _how)
RUNS["silence-deny-socket"] = silence(4, "deny", "socket")

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
