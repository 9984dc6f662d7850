"""baresip at both ends of viaduct: at a plain client's, at home behind a NAT, and as the farm."""

import contextlib

from lab import Lab, check, main
from nat_runs import home
from oracle import oracle
from phone import Phone


@contextlib.contextmanager
def phones(family=4, arms=1, nat=False):
    """(lab, phone, {server's name: phone}, a phone at a carrier)."""
    with Lab(family=family, arms=arms) as lab:
        lab.add("carrier", "br-out", "198.18.2.10/16", "2001:db8::2:10/64")
        place, ip = "client", lab.client
        if nat:
            home(lab)
            place, ip = "home", "198.19.200.2"
        lab.start_viaduct()
        with oracle(lab) as judge:
            made = []
            try:
                proxy = f"sip:{lab.bracket(lab.farm_address)}:5060"
                for n in (1, 2, 3):
                    address = lab.bracket(lab.server(n))
                    made.append(Phone(lab, f"server{n}", lab.server(n),
                                      f'<sip:bob@{address}>;regint=0;answermode=auto;outbound="{proxy}"'))
                phone = Phone(lab, place, ip, f"<sip:alice@{lab.bracket(ip)}>;regint=0")
                made.append(phone)
                other = "198.18.2.10" if family == 4 else "2001:db8::2:10"
                carol = Phone(lab, "carrier", other, f"<sip:carol@{lab.bracket(other)}>;regint=0;answermode=auto")
                made.append(carol)
                yield lab, phone, {server.namespace: server for server in made[:3]}, carol
            finally:
                for agent in made:
                    agent.close()
        lab.conserved()
        check(not lab.drops(), f"drops {lab.drops()}")
        print(f"    {judge}", flush=True)


def call(lab, phone, servers):
    """A call from the phone; returns the server that answered."""
    before = {name: lab.total("server_requests_total", server=name) for name in servers}
    phone.command("dial", lab.uri("bob"))
    phone.wait("CALL_ESTABLISHED")
    chosen = [name for name in servers if lab.total("server_requests_total", server=name) > before[name]]
    check(len(chosen) == 1, f"requests of one call at {chosen}")
    server = servers[chosen[0]]
    server.wait("CALL_ESTABLISHED")
    return server


def calls(family=4, arms=1, nat=False):
    """Calls with audio negotiated: hold and resume by either side, hung up by either side."""
    def run():
        with phones(family, arms, nat) as (lab, phone, servers, _):
            used = set()
            for n in range(6):
                server = call(lab, phone, servers)
                used.add(server.namespace)
                for one, other in ((phone, server), (server, phone)):
                    one.command("hold")
                    other.wait("CALL_REMOTE_SDP")
                    one.command("resume")
                    other.wait("CALL_REMOTE_SDP")
                one, other = (phone, server) if n % 2 else (server, phone)
                one.command("hangup")
                other.wait("CALL_CLOSED")
                one.wait("CALL_CLOSED")
            return f"6 calls at {sorted(used)}, 24 re-INVITEs"
    return run


def transfer(nat):
    """The phone transfers its call to the carrier: REFER, NOTIFY, and the server's own call out."""
    def run():
        with phones(nat=nat) as (lab, phone, servers, carol):
            for n in range(4):
                server = call(lab, phone, servers)
                phone.command("transfer", f"sip:carol@{carol.ip}")
                carol.wait("CALL_ESTABLISHED", 10)
                phone.wait("CALL_CLOSED", 10)
                server.wait("CALL_ESTABLISHED", 10)
                one, other = (carol, server) if n % 2 else (server, carol)
                one.command("hangup")
                other.wait("CALL_CLOSED")
                for agent in (phone, carol, *servers.values()):
                    agent.never("TRANSFER_FAILED", 0.05)
                    agent.events.clear()
            return "4 transfers"
    return run


RUNS = {"phone-ipv4-1arm": calls(), "phone-ipv4-2arm": calls(arms=2), "phone-ipv6-2arm": calls(6, 2),
        "phone-nat-1arm": calls(nat=True), "phone-nat-2arm": calls(arms=2, nat=True),
        "transfer": transfer(False), "transfer-nat": transfer(True)}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
