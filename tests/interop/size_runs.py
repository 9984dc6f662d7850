"""Messages of every size around the MTU, both ways, and links with a smaller MTU on one side.

A message that grows over the MTU by what viaduct adds must leave in fragments, by the kernel; nothing
may be lost, cut or changed.
"""

import contextlib

from lab import Lab, check, main
from oracle import oracle
from ua import Dialog, Ua, expect, nothing, transact


@contextlib.contextmanager
def talk(family, arms, mtu=None):
    """(lab, client, servers), with a smaller MTU on the farm's side if asked for."""
    with Lab(family=family, arms=arms) as lab:
        if mtu:
            for name, interface in (("lb", f"eth{arms - 1}"), *((f"server{n}", "eth0") for n in (1, 2, 3))):
                lab.command(name, "ip", "link", "set", interface, "mtu", mtu)
                lab.command("net", "ip", "link", "set", f"{name}-{interface}", "mtu", mtu)
        lab.start_viaduct()
        with oracle(lab) as judge:
            client = Ua(lab, "client", lab.client)
            servers = [Ua(lab, f"server{n}", lab.server(n), proxy=(lab.farm_address, 5060)) for n in (1, 2, 3)]
            try:
                yield lab, client, servers
                nothing([client, *servers])
            finally:
                for agent in (client, *servers):
                    agent.close()
        lab.conserved()
        check(not lab.drops(), f"drops {lab.drops()}")
        print(f"    {judge}", flush=True)


def body(total, shell):
    """A body that makes a datagram of `total` bytes with a shell of about `shell`."""
    return bytes(n % 251 for n in range(max(0, total - shell)))


def sizes(family, arms, mtu=None, steps=None):
    """Calls whose messages have every size in `steps` (bytes of the datagram)."""
    def run():
        kernel = 0
        with talk(family, arms, mtu) as (lab, client, servers):
            for total in steps:
                out = client.dialog(lab.uri())
                content = body(total, 300)
                out.send("INVITE", body=content)
                at, invite = expect(servers, "INVITE")
                check(invite.body == content, f"the body of {total} bytes changed")
                back = Dialog.of(at, invite)
                for code in (180, 200):
                    content = body(total, 420)
                    at.respond(invite, code, body=content)
                    response = expect(client, code)[1]
                    check(response.body == content, f"the body of a {code} with {total} bytes changed")
                out.learn(response)
                out.ack(response)
                expect(at, "ACK")
                for one, other in ((out, back), (back, out)):
                    content = body(total, 400)
                    got = transact(one, other, "MESSAGE", body=content)
                    check(got.body == content, f"the body of a MESSAGE with {total} bytes changed")
                transact(back, out, "BYE")
            kernel = lab.total("kernel_out_total")
        check(kernel > 0, "nothing left by the kernel's path")
        return f"{len(steps)} sizes, {kernel} messages out by the kernel"
    return run


AROUND = [*range(1180, 1560, 12), 3000, 8000, 20000]
RUNS = {"sizes-ipv4-1arm": sizes(4, 1, steps=AROUND), "sizes-ipv4-2arm": sizes(4, 2, steps=AROUND),
        "sizes-ipv6-1arm": sizes(6, 1, steps=AROUND), "sizes-ipv6-2arm": sizes(6, 2, steps=AROUND),
        # A tunnel towards the farm, an outside of full size.
        "small-mtu-ipv4": sizes(4, 2, 1300, range(1000, 1560, 20)), "small-mtu-ipv6": sizes(6, 2, 1300, range(1000, 1560, 20))}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
