"""What changes while calls ring and while they are up: servers, paths, source ports, keys, the process.

Seconds, with Python user agents and tshark as the judge: one server, one branch, whatever happens.
"""

import contextlib
import secrets

from lab import Lab, check, main
from oracle import oracle
from ua import Dialog, Ua, establish, expect, nothing, transact


@contextlib.contextmanager
def talk(config=None, family=4, arms=1):
    """A lab with user agents: (lab, client, servers); nothing is dropped."""
    with Lab(family=family, arms=arms) as lab:
        lab.start_viaduct(config(lab) if config else None)
        with oracle(lab) as judge:
            client = Ua(lab, "client", lab.client)
            servers = [Ua(lab, f"server{n}", lab.server(n), proxy=(lab.farm_address, 5060)) for n in (1, 2, 3)]
            try:
                yield lab, client, servers
                nothing([client, *servers])
                lab.conserved()
                check(not lab.drops(), f"drops {lab.drops()}")
            finally:
                for agent in (client, *servers):
                    agent.close()
        print(f"    {judge}", flush=True)


def ring(lab, client, servers, count):
    """Calls that ring: [(caller's side, server, its INVITE)]."""
    ringing = []
    for _ in range(count):
        out = client.dialog(lab.uri())
        out.send("INVITE", body=b"offer")
        at, invite = expect(servers, "INVITE")
        at.respond(invite, 180)
        expect(client, 180)
        ringing.append((out, at, invite))
    return ringing


def finish(client, ringing, way):
    """Ends a ringing call: answered and hung up by either side, refused, or cancelled."""
    out, at, invite = ringing
    if way in ("caller", "callee"):
        at.respond(invite, 200)
        response = expect(client, 200)[1]
        out.learn(response)
        out.ack(response)
        expect(at, "ACK")
        back = Dialog.of(at, invite)
        transact(*((out, back) if way == "caller" else (back, out)), "BYE")
        return
    code = 486
    if way == "cancel":
        out.cancel()
        _, cancel = expect(at, "CANCEL")
        check(cancel.branch == invite.branch, "CANCEL with another branch")
        at.respond(cancel, 200)
        expect(client, 200)
        code = 487
    at.respond(invite, code)
    out.ack(expect(client, code)[1])
    check(expect(at, "ACK")[1].branch == invite.branch, "ACK with another branch")


SECRET = secrets.token_hex(32)
WAYS = ("caller", "callee", "refuse", "cancel")


def reloads_while_ringing(family, arms):
    """Servers come and go while calls ring, their own too; each call ends as if nothing had been."""
    def run():
        with talk(lambda lab: lab.config(servers=["server1", "server2"]), family, arms) as (lab, client, servers):
            ringing = ring(lab, client, servers, 16)
            for names in (["server1", "server2", "server3"], ["server3"], ["server2", "server3"], ["server3"]):
                lab.reload(lab.config(servers=names))
                again = ringing[0]  # its caller repeats the INVITE
                again[0].send("INVITE", branch=again[0].invite[0], cseq=1, body=b"offer")
                check(expect(again[1], "INVITE")[1].data == again[2].data, "the repeated INVITE is not the same")
                for n, call in enumerate(ringing[-4:]):
                    finish(client, call, WAYS[n])
                del ringing[-4:]
                if not ringing:
                    break
                # New calls go to the servers of now.
                (fresh,) = ring(lab, client, servers, 1)
                check(fresh[1].namespace in names, f"a new call at {fresh[1].namespace}, which is gone")
                finish(client, fresh, "caller")
            return "16 calls, 4 reloads"
    return run


def paths():
    """INVITE in fragments through the kernel, CANCEL through XDP, ACK from another source port."""
    with talk() as (lab, client, servers):
        other = Ua(lab, "client", lab.client, 5071)
        try:
            for n in range(12):
                out = client.dialog(lab.uri())
                kernel = lab.total("kernel_in_total")
                body = b"x" * 2500
                out.send("INVITE", body=body)
                at, invite = expect(servers, "INVITE")
                check(invite.body == body and lab.total("kernel_in_total") == kernel + 1, "the INVITE did not take the kernel path")
                xdp = lab.total("xdp_in_total")
                out.cancel(sender=other if n % 2 else None)
                at2, cancel = expect(servers, "CANCEL")
                check(at2 is at and cancel.branch == invite.branch, "CANCEL elsewhere")
                check(lab.total("xdp_in_total") == xdp + 1, "the CANCEL did not take XDP")
                at.respond(cancel, 200)
                # RFC 3581: the answer goes where the request came from.
                expect(other if n % 2 else client, 200)
                at.respond(invite, 487)
                response = expect(client, 487)[1]
                out.ack(response, sender=other)
                at2, ack = expect(servers, "ACK")
                check(at2 is at and ack.branch == invite.branch, "ACK elsewhere or with another branch")
            nothing([other])
        finally:
            other.close()
        return "12 INVITE by the kernel, CANCEL by XDP, ACK from another port"


def overtaken():
    """CANCEL by XDP before its INVITE, which comes in fragments: the same server and branch."""
    with talk() as (lab, client, servers):
        for _ in range(12):
            out = client.dialog(lab.uri())
            out.cseq = 1
            out.invite = (f"z9hG4bK{out.call_id}", 1, None)
            out.cancel()
            at, cancel = expect(servers, "CANCEL")
            at.respond(cancel, 481)
            expect(client, 481)
            out.send("INVITE", branch=out.invite[0], cseq=1, body=b"x" * 2500)
            at2, invite = expect(servers, "INVITE")
            check(at2 is at and cancel.branch == invite.branch, "the INVITE went elsewhere")
            at.respond(invite, 487)
            out.ack(expect(client, 487)[1])
            expect(at, "ACK")
        return "12 CANCEL before their INVITE"


def token_config(lab, keys, servers=None):
    """A configuration with these token secrets, {id: hex}, the first for new tokens."""
    text = lab.config(servers=servers).replace(f'file = "{lab.path}/secret"', f'hex = "{SECRET}"')
    tokens = "".join(f'[[secret.tokens]]\nid = {number}\nhex = "{value}"\n' for number, value in keys.items())
    return text.replace("[datapath]", f"{tokens}[datapath]", 1)


def byes(calls):
    """Ends calls from alternate sides, after a request each way."""
    for n, (out, back) in enumerate(calls):
        transact(out, back, "UPDATE")
        transact(back, out, "UPDATE")
        transact(*((out, back) if n % 2 else (back, out)), "BYE")


def bye_after_reload():
    """BYE from both sides after the calls' servers left the configuration."""
    with talk() as (lab, client, servers):
        calls = [establish(client, servers, lab.uri()) for _ in range(12)]
        check(len({back.ua for _, back in calls}) > 1, "all calls at one server")
        lab.reload(lab.config(servers=["server2"]))
        byes(calls[:6])
        lab.reload(lab.config(servers=["server3"]))
        byes(calls[6:])
        return "12 calls, 2 reloads"


def bye_after_restart():
    """BYE from both sides after viaduct ended and another started."""
    with talk() as (lab, client, servers):
        calls = [establish(client, servers, lab.uri()) for _ in range(8)]
        for how in ("end", "kill"):
            if how == "kill":
                lab.viaduct.kill()
                lab.viaduct.wait()
            else:
                check(lab.end(lab.viaduct) == 0, "viaduct did not end well")
            lab.start_viaduct()
            byes(calls[:4])
            del calls[:4]
        return "8 calls, one stop, one kill"


def bye_after_rotations():
    """Two rotations of the token keys by reload, then a restart; calls from before each of them."""
    keys = {0: SECRET}
    with talk(lambda lab: token_config(lab, keys)) as (lab, client, servers):
        calls = [establish(client, servers, lab.uri()) for _ in range(6)]
        tokens = [calls[0][1].routes[0]]
        for number in (1, 2):
            keys = {number: secrets.token_hex(32), **keys}
            lab.reload(token_config(lab, keys))
            calls += [establish(client, servers, lab.uri()) for _ in range(6)]
            tokens.append(calls[-1][1].routes[0])
        byes(calls[0::2])
        check(lab.end(lab.viaduct) == 0, "viaduct did not end well")
        lab.start_viaduct(token_config(lab, keys))
        byes(calls[1::2])
        return f"18 calls, 2 rotations, a restart; {len(set(tokens))} tokens"


def ringing_rotation():
    """The token keys rotate while calls ring: a repeated INVITE and the rest keep server and branch."""
    keys = {0: SECRET}
    with talk(lambda lab: token_config(lab, keys)) as (lab, client, servers):
        ringing = ring(lab, client, servers, 8)
        lab.reload(token_config(lab, {1: secrets.token_hex(32), **keys}))
        for n, call in enumerate(ringing):
            finish(client, call, WAYS[n % 4])
        return "8 calls"


RUNS = {"reloads-while-ringing": reloads_while_ringing(4, 1), "reloads-while-ringing-ipv6-2arm": reloads_while_ringing(6, 2),
        "paths": paths, "overtaken": overtaken, "bye-after-reload": bye_after_reload, "bye-after-restart": bye_after_restart,
        "bye-after-rotations": bye_after_rotations, "ringing-rotation": ringing_rotation}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
