"""NATs made by the kernel (nftables): a client behind one, and viaduct itself behind a 1:1 NAT.

    home, caller      behind:  198.19.200.0/24         public side of the cloud: 198.19.100.0/24
    a client's NAT             home ── nat ── br-out ── lb
    a cloud's 1:1 NAT          caller ── cloud ── br-out ── lb: 198.19.100.10 is 198.18.0.1

No address of a private network can be reached from the balancer: it has no route there.
"""

import contextlib

from lab import Lab, check, main
from oracle import oracle
from ua import Ua, answer, establish, expect, nothing, transact

PORTS = ("20000-20999", "30000-30999")


def masquerade(lab, ports, nat="nat"):
    """The router's source NAT from now on; what it remembers is forgotten."""
    lab.command(nat, "nft", "flush ruleset")
    lab.command(nat, "nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; "
                f'add rule ip nat out oifname "eth0" ip protocol udp masquerade to :{ports}')
    lab.run(nat, ["conntrack", "-F"], 5)


def home(lab, number=""):
    """A home behind a NAT: namespaces `nat` and `home`, or `nat2` and `home2` …; its address."""
    nat, place, inside = f"nat{number}", f"home{number}", f"198.19.20{number or 0}"
    lab.add(nat, "br-out", f"198.18.3.{number or 1}/16")
    lab.add(nat, f"br-home{number}", f"{inside}.1/24")
    lab.add(place, f"br-home{number}", f"{inside}.2/24")
    lab.command(place, "ip", "route", "add", "default", "via", f"{inside}.1")
    lab.command(nat, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    masquerade(lab, PORTS[0], nat)
    return f"{inside}.2"


@contextlib.contextmanager
def behind_nat(arms=1, listeners_extra=""):
    """A client at home behind a NAT: (lab, client, servers)."""
    with Lab(arms=arms) as lab:
        home(lab)
        lab.start_viaduct(lab.config(listeners_extra=listeners_extra))
        with oracle(lab) as judge:
            client = Ua(lab, "home", "198.19.200.2")
            servers = [Ua(lab, f"server{n}", lab.server(n), proxy=(lab.farm_address, 5060)) for n in (1, 2, 3)]
            try:
                yield lab, client, servers
                nothing([client, *servers])
                lab.conserved()
                drops = {reason: count for reason, count in lab.drops().items() if reason != "keepalive"}
                check(not drops, f"drops {drops}")
            finally:
                for agent in (client, *servers):
                    agent.close()
        print(f"    {judge}", flush=True)


def source(message):
    """(address, port) that viaduct saw, from the Via marks under its own Via."""
    via = message.all("via")[1]
    return tuple(part.split("=")[1] for name in ("received=", "rport=") for part in via.split(";") if part.startswith(name))


def call_from_home(arms):
    """Calls through the NAT: BYE of either side, re-INVITE of either, CANCEL, refusal."""
    def run():
        with behind_nat(arms) as (lab, client, servers):
            for n in range(8):
                out = client.dialog(lab.uri())
                out.send("INVITE")
                at, invite = expect(servers, "INVITE")
                ip, port = source(invite)
                check(ip == "198.18.3.1" and 20000 <= int(port) <= 20999, f"no NAT in between: {invite.all('via')}")
                check("198.19.200.2" in invite.one("contact"), "Contact changed")
                out, back = answer(out, at, invite)
                check(all(client.ip not in route for route in back.routes), f"routes {back.routes}")
                transact(back, out, "OPTIONS")
                transact(out, back, "UPDATE")
                transact(*((out, back) if n % 2 else (back, out)), "BYE")
            for code in (486, 487):
                out = client.dialog(lab.uri())
                out.send("INVITE")
                at, invite = expect(servers, "INVITE")
                if code == 487:
                    at.respond(invite, 180)
                    expect(client, 180)
                    out.cancel()
                    at2, cancel = expect(servers, "CANCEL")
                    check(at2 is at and cancel.branch == invite.branch, "CANCEL elsewhere")
                    at.respond(cancel, 200)
                    expect(client, 200)
                at.respond(invite, code)
                out.ack(expect(client, code)[1])
                check(expect(at, "ACK")[1].branch == invite.branch, "ACK with another branch")
            return "8 calls, 2 without an answer"
    return run


def keepalives():
    """CR LF every now and then: no answer, the mapping stays, the server's BYE comes through it."""
    with behind_nat() as (lab, client, servers):
        out, back = establish(client, servers, lab.uri())
        _, before = lab.run("nat", ["conntrack", "-L", "-p", "udp"], 5)
        for noise in (b"\r\n\r\n", b"\r\n", b"\0\0\0\0") * 3:
            client.send(noise, (lab.vip, 5060))
        nothing([client, *servers])
        check(lab.drops() == {"keepalive": 9}, f"drops {lab.drops()}")
        _, after = lab.run("nat", ["conntrack", "-L", "-p", "udp"], 5)
        ports = [{word for word in text.split() if word.startswith("dport=2")} for text in (before, after)]
        check(len(ports[0]) == 1 and ports[0] == ports[1], f"the mapping changed: {before} {after}")
        transact(back, out, "BYE")
        return "9 keepalives, one mapping"


def moved_bye():
    """The mapping changes during calls: what the client sends next still finds its server, and its
    answers find the new mapping."""
    with behind_nat() as (lab, client, servers):
        calls = [establish(client, servers, lab.uri()) for _ in range(4)]
        for n, (out, back) in enumerate(calls):
            masquerade(lab, PORTS[(n + 1) % 2])
            update = transact(out, back, "UPDATE")
            low = int(PORTS[(n + 1) % 2].split("-")[0])
            check(low <= int(source(update)[1]) <= low + 999, f"the mapping did not change: {update.all('via')}")
            transact(out, back, "BYE")
        return "4 calls over 4 mappings"


def moved_server_bye():
    """The mapping changes during a call and the client sends something: the server's BYE takes the
    new mapping."""
    with behind_nat(listeners_extra='nat = "auto"') as (lab, client, servers):
        for n in range(4):
            out, back = establish(client, servers, lab.uri())
            masquerade(lab, PORTS[(n + 1) % 2])
            transact(out, back, "UPDATE")
            transact(back, out, "BYE")
        return "4 calls over 4 mappings"


def called(arms):
    """A phone at home registers with Path and is called by each server: requests of either side, a
    move in the middle of the call, BYE of either side."""
    def run():
        with behind_nat(arms, 'path = "auto"') as (lab, client, servers):
            for n in range(6):
                client.dialog(lab.uri()).send("REGISTER", extra=["Supported: path"])
                at, register = expect(servers, "REGISTER")
                paths = register.all("path")
                check(len(paths) == 1 and f"@{lab.farm_address}:5060" in paths[0], f"Path {paths}")
                check(source(register)[0] == "198.18.3.1", f"no NAT in between: {register.all('via')}")
                at.respond(register, 200, extra=[f"Path: {paths[0]}"])
                check(expect(client, 200)[1].all("path") == paths, "the Path of the answer changed")
                out, back = establish(servers[n % 3], [client], client.contact.strip("<>"), routes=paths)
                check(all(client.ip not in route for route in back.routes), f"routes {back.routes}")
                transact(out, back, "UPDATE")
                masquerade(lab, PORTS[(n + 1) % 2])
                transact(back, out, "UPDATE")
                transact(out, back, "UPDATE")
                transact(*((out, back) if n % 4 < 2 else (back, out)), "BYE")
            # Without Supported: path there is none.
            client.dialog(lab.uri()).send("REGISTER")
            at, register = expect(servers, "REGISTER")
            check(not register.all("path"), "a silent Path")
            at.respond(register, 200)
            expect(client, 200)
            return "6 calls to a phone over 6 mappings"
    return run


def no_rport():
    """A client that does not ask for rport behind a NAT: with nat = "force-rport" it is served."""
    with behind_nat(listeners_extra='nat = "force-rport"') as (lab, client, servers):
        for _ in range(4):
            out = client.dialog(lab.uri())
            text = (f"INVITE {lab.uri()} SIP/2.0\r\nVia: SIP/2.0/UDP {client.host};branch=z9hG4bK{out.call_id}\r\n"
                    f"Max-Forwards: 70\r\nFrom: {out.local};tag={out.local_tag}\r\nTo: {out.remote}\r\nCall-ID: {out.call_id}\r\n"
                    f"CSeq: 1 INVITE\r\nContact: {client.contact}\r\nContent-Length: 0\r\n\r\n")
            out.cseq, out.invite = 1, (f"z9hG4bK{out.call_id}", 1, None)
            client.send(text, (lab.vip, 5060))
            out, back = answer(out, *expect(servers, "INVITE"))
            transact(back, out, "BYE")
        return "4 calls"


def second_port(arms):
    """Two listeners on one address: a NAT lets in only what comes from the port that was called."""
    def run():
        extra = '[[listeners]]\nname = "more"\naddress = "198.18.0.1:5080"'
        with behind_nat(arms, extra) as (lab, client, servers):
            for n in range(8):
                port = (5060, 5080)[n % 2]
                out, back = establish(client, servers, f"sip:bob@{lab.vip}:{port}")
                check(any(f":{port};" in route for route in back.routes), f"routes {back.routes}")
                # No traffic of the client: the mapping is for that port alone.
                transact(back, out, "UPDATE")
                transact(out, back, "UPDATE")
                transact(back, out, "BYE")
            return "8 calls to two ports"
    return run


@contextlib.contextmanager
def cloud(arms, port=5060):
    """viaduct behind a 1:1 NAT, its port mapped too: (lab, client, servers, its public address)."""
    public = "198.19.100.10"
    with Lab(arms=arms) as lab:
        lab.add("cloud", "br-out", "198.18.5.1/16")
        lab.add("cloud", "br-inet", "198.19.100.1/24", f"{public}/32")
        lab.add("caller", "br-inet", "198.19.100.2/24")
        lab.command("cloud", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        lab.command("cloud", "nft", "add table ip nat; "
                    "add chain ip nat in { type nat hook prerouting priority -100; }; "
                    "add chain ip nat out { type nat hook postrouting priority 100; }; "
                    f"add rule ip nat in ip daddr {public} udp dport {port} dnat to {lab.vip}:5060; "
                    f'add rule ip nat out oifname "eth1" ip saddr {lab.vip} udp sport 5060 snat to {public}:{port}')
        # With two arms 198.19.0.0/16 is the farm's: the longer prefix is the outside's.
        lab.command("lb", "ip", "route", "add", "198.19.100.0/24", "via", "198.18.5.1")
        lab.start_viaduct(lab.config(listeners_extra=f'advertise = "{public}:{port}"'))
        with oracle(lab) as judge:
            client = Ua(lab, "caller", "198.19.100.2")
            # A server reaches us at our farm side, or sends everything to us as its outbound proxy:
            # the advertised address is not one that it could reach itself.
            servers = [Ua(lab, f"server{n}", lab.server(n), proxy=(lab.farm_address, 5060)) for n in (1, 2, 3)]
            try:
                yield lab, client, servers, public
                nothing([client, *servers])
                lab.conserved()
                check(not lab.drops(), f"drops {lab.drops()}")
            finally:
                for agent in (client, *servers):
                    agent.close()
        print(f"    {judge}", flush=True)


def advertised(arms, port=5060):
    """Advertised is not bound: INVITE, BYE of either side, re-INVITE, CANCEL, refusal, OPTIONS to us."""
    def run():
        with cloud(arms, port) as (lab, client, servers, public):
            uri = f"sip:bob@{public}:{port}"
            for n in range(6):
                out = client.dialog(uri)
                out.send("INVITE")
                at, invite = expect(servers, "INVITE")
                routes = " ".join(invite.all("record-route"))
                check(public in routes and lab.vip not in routes, f"Record-Route {routes}")
                check((public if arms == 1 else lab.farm_address) in invite.all("via")[0], f"Via {invite.all('via')}")
                out, back = answer(out, at, invite)
                transact(out, back, "UPDATE")
                transact(back, out, "UPDATE")
                transact(*((out, back) if n % 2 else (back, out)), "BYE")
            for code in (486, 487):
                out = client.dialog(uri)
                out.send("INVITE")
                at, invite = expect(servers, "INVITE")
                if code == 487:
                    at.respond(invite, 180)
                    expect(client, 180)
                    out.cancel()
                    at2, cancel = expect(servers, "CANCEL")
                    check(at2 is at and cancel.branch == invite.branch, "CANCEL elsewhere")
                    at.respond(cancel, 200)
                    expect(client, 200)
                at.respond(invite, code)
                out.ack(expect(client, code)[1])
                check(expect(at, "ACK")[1].branch == invite.branch, "ACK with another branch")
            # To our own URI, without a user: we answer ourselves.
            client.dialog(f"sip:{public}:{port}").send("OPTIONS")
            expect(client, 200)
            # A call out from the farm shows the advertised address to the outside.
            call = establish(servers[0], [client], f"sip:caller@{client.host}")
            check(public in " ".join(call[1].routes), f"routes {call[1].routes}")
            transact(call[1], call[0], "BYE")
            return "7 calls, 2 without an answer, OPTIONS"
    return run


RUNS = {
    "home-1arm": call_from_home(1), "home-2arm": call_from_home(2), "keepalives": keepalives, "moved-bye": moved_bye,
    "moved-server-bye": moved_server_bye, "called-1arm": called(1), "called-2arm": called(2),
    "no-rport": no_rport,
    "advertised-1arm": advertised(1), "advertised-2arm": advertised(2),
    "advertised-port-1arm": advertised(1, 5070), "advertised-port-2arm": advertised(2, 5070),
    "second-port-1arm": second_port(1), "second-port-2arm": second_port(2),
}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
