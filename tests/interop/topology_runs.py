"""Other shapes of the network: a standby that takes the address over, two families, more workers,
servers that only stand by."""

import contextlib
import secrets
import socket
import struct

from kamailio_runs import calls
from lab import Lab, check, main
from oracle import oracle
from ringing_runs import WAYS, finish, ring
from ua import Ua, establish, expect, nothing, transact


@contextlib.contextmanager
def agents(lab, client, servers, **options):
    """User agents at these addresses, judged: (client, servers)."""
    with oracle(lab) as judge:
        made = [Ua(lab, "client", client), *(Ua(lab, f"server{n}", address, **options) for n, address in enumerate(servers, 1))]
        try:
            yield made[0], made[1:]
            nothing(made)
        finally:
            for agent in made:
                agent.close()
    lab.conserved()
    check(not lab.drops(), f"drops {lab.drops()}")
    print(f"    {judge}", flush=True)


def announce(lab, namespace, ip):
    """A gratuitous ARP, as a VRRP daemon sends it when it takes an address over."""
    mac = bytes.fromhex(lab.mac(namespace).replace(":", ""))
    address = socket.inet_aton(ip)
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address + b"\xff" * 6 + address

    def send():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as made:
            made.bind(("eth0", 0))
            made.send(b"\xff" * 6 + mac + b"\x08\x06" + arp)
    lab.inside(namespace, send)


def standby(kill):
    """Two nodes and one address: calls up and calls that ring go on when the other node takes it."""
    def run():
        with Lab() as lab:
            lab.add("lb2", "br-out", "198.18.0.3/16")
            lab.balancers["lb2"] = 1
            # The node's own address stays; the served one moves.
            lab.command("lb", "ip", "address", "del", f"{lab.vip}/16", "dev", "eth0")
            lab.command("lb", "ip", "address", "add", "198.18.0.2/16", "dev", "eth0")
            lab.command("lb", "ip", "address", "add", f"{lab.vip}/32", "dev", "eth0")
            secret = secrets.token_hex(32)
            text = lab.config(listeners_extra='freebind = true\ninterface = "eth0"').replace(
                f'file = "{lab.path}/secret"', f'hex = "{secret}"')
            lab.start_viaduct("node = 0\n" + text)
            other = lab.serve("lb2", "node = 1\n" + text, "standby")

            def take_over(giver, taker):
                lab.command(giver, "ip", "address", "del", f"{lab.vip}/32", "dev", "eth0")
                lab.command(taker, "ip", "address", "add", f"{lab.vip}/32", "dev", "eth0")
                announce(lab, taker, lab.vip)

            with oracle(lab) as judge:
                client = Ua(lab, "client", lab.client)
                servers = [Ua(lab, f"server{n}", lab.server(n)) for n in (1, 2, 3)]
                try:
                    for giver, taker in (("lb", "lb2"), ("lb2", "lb")):
                        up = [establish(client, servers, lab.uri()) for _ in range(6)]
                        ringing = ring(lab, client, servers, 8)
                        before = lab.total("xdp_in_total", taker)
                        if kill and giver == "lb2":
                            other.kill()
                            other.wait()
                        take_over(giver, taker)
                        for out, at, invite in ringing:
                            out.send("INVITE", branch=out.invite[0], cseq=1, body=b"offer")
                            who, again = expect(servers, "INVITE")
                            check(who is at and again.data == invite.data, "the repeated INVITE is another or elsewhere")
                        for n, call in enumerate(ringing):
                            finish(client, call, WAYS[n % 4])
                        for n, (out, back) in enumerate(up):
                            transact(out, back, "UPDATE")
                            transact(back, out, "UPDATE")
                            transact(*((out, back) if n % 2 else (back, out)), "BYE")
                        fresh = establish(client, servers, lab.uri())
                        transact(*fresh, "BYE")
                        passed = lab.total("xdp_in_total", taker) - before
                        check(passed > 60, f"only {passed} messages by XDP at {taker}")
                    nothing([client, *servers])
                finally:
                    for agent in (client, *servers):
                        agent.close()
            for name in ("lb",) if kill else ("lb", "lb2"):
                check(not lab.total("drops_total", name), f"{name} dropped something: {lab.drops()}")
            return f"12 calls up, 16 ringing, two take-overs; {judge}"
    return run


def mixed(client_family):
    """Clients of one family, a farm of the other: every message changes family on its way."""
    def run():
        with Lab(family=client_family) as lab:
            farm = Lab(family=10 - client_family)
            text = lab.config(listeners_extra='[[listeners]]\nname = "farm"\nside = "farm"\n'
                              f'address = "{farm.bracket(farm.vip)}:5060"')
            for n in (1, 2, 3):
                text = text.replace(f'"{lab.bracket(lab.server(n))}:5060"', f'"{farm.bracket(farm.server(n))}:5060"')
            lab.start_viaduct(text)
            with agents(lab, lab.client, [farm.server(n) for n in (1, 2, 3)], proxy=(farm.vip, 5060)) as (client, servers):
                text = calls(lab, client, servers, 2)
                out = establish(client, servers, lab.uri())
                check(len(out[1].routes) == 2, f"Record-Route {out[1].routes}")
                transact(*out, "BYE")
            return text
    return run


def workers(arms):
    """Two workers on two queues, calls with a transaction: every message finds its call's home."""
    def run():
        with Lab(arms=arms, queues=2, workers=2) as lab:
            lab.start_viaduct()
            with agents(lab, lab.client, [lab.server(n) for n in (1, 2, 3)], proxy=(lab.farm_address, 5060)) as (client, servers):
                text = calls(lab, client, servers, 2)
            check(lab.total("hand_over_out_total") == 0, "handed over, though XDP knows the home")
            check(lab.total("steered_total", by="call_id") > 0, "no Call-ID was found")
            return f"{text}, {lab.total('steered_total', by='call_id')} by Call-ID, none handed over"
    return run


def priorities():
    """Only the lowest priority gets calls; by reload the next one does, and calls up stay."""
    def config(lab, *priority):
        text = lab.config()
        for n, value in enumerate(priority, 1):
            text = text.replace(f'name = "server{n}"', f'name = "server{n}"\npriority = {value}')
        return text

    with Lab() as lab:
        lab.start_viaduct(config(lab, 1, 0, 0))
        with agents(lab, lab.client, [lab.server(n) for n in (1, 2, 3)]) as (client, servers):
            up = [establish(client, servers, lab.uri()) for _ in range(12)]
            check({back.ua for _, back in up} == set(servers[1:]), "calls at others than servers 2 and 3")
            lab.reload(config(lab, 1, 2, 2))
            later = [establish(client, servers, lab.uri()) for _ in range(6)]
            check({back.ua for _, back in later} == {servers[0]}, "calls at others than server 1")
            for n, (out, back) in enumerate(up + later):
                transact(*((out, back) if n % 2 else (back, out)), "BYE")
        return "18 calls"


RUNS = {"standby": standby(False), "standby-kill": standby(True), "ipv6-to-ipv4": mixed(6), "ipv4-to-ipv6": mixed(4),
        "workers-1arm": workers(1), "workers-2arm": workers(2), "priorities": priorities}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
