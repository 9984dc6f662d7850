"""Calls to phones behind a NAT: viaduct's Path in their registration (RFC 3327) leads to them."""

import contextlib
import time

from kamailio_runs import kamailio
from lab import Lab, check, main
from nat_runs import PORTS, behind_nat, home, masquerade
from oracle import oracle
from phone import Phone
from ua import Ua, establish, expect, nothing, transact

# A registrar of Kamailio's that keeps the Path; a Path the client did not offer is refused (420).
REGISTRAR = """loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "use_path", 1)
modparam("registrar", "path_mode", 2)
modparam("registrar", "method_filtering", 0)
"""
LOOKUP = """if (is_method("REGISTER")) {{ save("location"); exit; }}
  record_route();
  if (!lookup("location")) {{ sl_send_reply("404", "Not registered here"); exit; }}
  t_relay();"""


def register(lab, client, servers, supported=True):
    """Registers; returns (the server, its REGISTER)."""
    aor = f"sip:alice@{lab.bracket(lab.vip)}:5060"
    out = client.dialog(f"sip:{lab.bracket(lab.vip)}:5060", local=f"<{aor}>", remote=f"<{aor}>")
    out.send("REGISTER", extra=["Expires: 600", *(["Supported: path"] if supported else [])])
    at, message = expect(servers, "REGISTER")
    at.respond(message, 200, extra=[f"Path: {value}" for value in message.all("path")])
    ok = expect(client, 200)[1]
    check(ok.all("path") == message.all("path"), "Path changed on its way back")
    return at, message


def called(client, server, message):
    """A server calls the registered client along its Path: (server's side, client's side)."""
    contact = message.one("contact").strip("<>")
    return establish(server, [client], contact, routes=message.all("path"))


def python_calls(arms):
    """Registered from home; called from the farm; the mapping changes and it registers again."""
    def run():
        with behind_nat(arms, 'path = "auto"') as (lab, client, servers):
            for n in range(4):
                masquerade(lab, PORTS[n % 2])
                at, message = register(lab, client, servers)
                check(len(message.all("path")) == 1, f"Path {message.all('path')}")
                check(client.ip in message.one("contact"), "Contact changed")
                for who in (0, 1):
                    call = called(client, at, message)
                    transact(call[0], call[1], "UPDATE")
                    transact(call[1], call[0], "UPDATE")
                    transact(call[who], call[1 - who], "BYE")
                # Cancelled while it rings.
                out = at.dialog(message.one("contact").strip("<>"), routes=message.all("path"))
                out.send("INVITE")
                _, invite = expect(client, "INVITE")
                client.respond(invite, 180)
                expect(at, 180)
                out.cancel()
                _, cancel = expect(client, "CANCEL")
                check(cancel.branch == invite.branch, "CANCEL with another branch")
                client.respond(cancel, 200)
                expect(at, 200)
                client.respond(invite, 487)
                out.ack(expect(at, 487)[1])
                check(expect(client, "ACK")[1].branch == invite.branch, "ACK with another branch")
            # Without Supported: path there is none, and the registrar gets what the client sent.
            check(not register(lab, client, servers, supported=False)[1].all("path"), "a Path that nobody offered")
            return "4 registrations, 12 calls to the phone"
    return run


def required():
    """path = "require": 421 for who does not support it, Path for who does."""
    with behind_nat(listeners_extra='path = "require"') as (lab, client, servers):
        out = client.dialog(f"sip:{lab.vip}:5060", local=f"<sip:alice@{lab.vip}>", remote=f"<sip:alice@{lab.vip}>")
        out.send("REGISTER")
        refused = expect(client, 421)[1]
        check("path" in refused.one("require"), "421 without Require: path")
        nothing(servers)
        at, message = register(lab, client, servers)
        call = called(client, at, message)
        transact(call[0], call[1], "BYE")
        return "one 421, one call"


def stolen():
    """A stranger with the Path of another gets nowhere near that phone."""
    with behind_nat(listeners_extra='path = "auto"') as (lab, client, servers):
        _, message = register(lab, client, servers)
        stranger = Ua(lab, "client", lab.client)
        try:
            out = stranger.dialog(message.one("contact").strip("<>"), routes=message.all("path"))
            out.send("INVITE")
            expect(stranger, 403)
            nothing([client, *servers])
        finally:
            stranger.close()
        return "403"


@contextlib.contextmanager
def registrars(arms):
    """Kamailio as registrar, users by their address-of-record: (lab, judge)."""
    with Lab(arms=arms) as lab:
        home(lab)
        lab.add("carrier", "br-out", "198.18.2.10/16")
        lab.start_viaduct(lab.config(listeners_extra='path = "auto"') + '[[routes]]\npool = "farm"\nkey = "aor"\n')
        for n in (1, 2, 3):
            kamailio(lab, n, REGISTRAR, LOOKUP)
        with oracle(lab) as judge:
            yield lab, judge
        lab.conserved()
        check(not lab.drops(), f"drops {lab.drops()}")
        print(f"    {judge}", flush=True)


def real_calls(arms):
    """baresip at home registers at Kamailio through viaduct; baresip outside calls it."""
    def run():
        with registrars(arms) as (lab, _):
            made = []
            try:
                for place, ip, user in (("home", "198.19.200.2", "alice"), ("carrier", "198.18.2.10", "carol"),
                                        ("client", lab.client, "dave")):
                    made.append(Phone(lab, place, ip, f"<sip:{user}@{lab.vip}>;regint=60;sipnat=outbound;"
                                      f'outbound="sip:{lab.vip}:5060";answermode=auto'))
                for phone in made:
                    phone.registered()
                alice, carol, dave = made
                for n, (caller, callee, user) in enumerate(
                        ((carol, alice, "alice"), (dave, alice, "alice"), (alice, carol, "carol"), (dave, carol, "carol")) * 2):
                    caller.command("dial", f"sip:{user}@{lab.vip}")
                    caller.wait("CALL_ESTABLISHED")
                    callee.wait("CALL_ESTABLISHED")
                    for one, other in ((caller, callee), (callee, caller)):
                        one.command("hold")
                        other.wait("CALL_REMOTE_SDP")
                        one.command("resume")
                        other.wait("CALL_REMOTE_SDP")
                    time.sleep(0.1)
                    one, other = (caller, callee) if n < 4 else (callee, caller)
                    one.command("hangup")
                    other.wait("CALL_CLOSED")
                    for phone in made:
                        phone.events.clear()
                return "3 phones registered, 8 calls between them"
            finally:
                for phone in made:
                    phone.close()
    return run


RUNS = {"path-1arm": python_calls(1), "path-2arm": python_calls(2), "path-required": required, "path-stolen": stolen,
        "registrar-1arm": real_calls(1), "registrar-2arm": real_calls(2)}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
