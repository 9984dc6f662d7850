"""Two phones, each behind a NAT of its own, that know only viaduct; Kamailio is their registrar.

    home ── nat ──┐                  ┌── Kamailio on server1..3
    phone         br-out ── lb ──────┤
    home2 ─ nat2 ─┘
"""

import contextlib
import time

from kamailio_runs import kamailio
from lab import Lab, check, main
from nat_runs import PORTS, home, masquerade
from oracle import oracle
from path_runs import LOOKUP, REGISTRAR
from phone import Phone


def register(lab, place, ip, user):
    """A phone, once it is registered."""
    phone = Phone(lab, place, ip, f'<sip:{user}@{lab.vip}>;regint=60;sipnat=outbound;outbound="sip:{lab.vip}:5060"')
    try:
        phone.registered()
    except BaseException:
        phone.close()
        raise
    return phone


@contextlib.contextmanager
def two_phones(arms):
    """(lab, alice, bob), both registered."""
    with Lab(arms=arms) as lab:
        places = {"home": home(lab), "home2": home(lab, 2)}
        lab.start_viaduct(lab.config(listeners_extra='path = "auto"') + '[[routes]]\npool = "farm"\nkey = "aor"\n')
        for n in (1, 2, 3):
            kamailio(lab, n, REGISTRAR, LOOKUP)
        made = []
        with oracle(lab) as judge:
            try:
                for (place, ip), user in zip(places.items(), ("alice", "bob")):
                    made.append(register(lab, place, ip, user))
                yield lab, made
            finally:
                for phone in made:
                    phone.close()
        lab.conserved()
        check(not lab.drops(), f"drops {lab.drops()}")
        print(f"    {judge}", flush=True)


def ring(lab, caller, callee, user):
    """The callee's phone rings, and the caller's hears it."""
    caller.command("dial", f"sip:{user}@{lab.vip}")
    callee.wait("CALL_INCOMING")
    caller.wait("CALL_RINGING")


def end(one, other):
    """`one` hangs up; both know it."""
    one.command("hangup")
    other.wait("CALL_CLOSED")
    one.wait("CALL_CLOSED")
    for phone in (one, other):
        phone.events.clear()
    time.sleep(0.05)


def up(lab, caller, callee, user):
    ring(lab, caller, callee, user)
    callee.command("accept")
    caller.wait("CALL_ESTABLISHED")
    callee.wait("CALL_ESTABLISHED")


def pair(arms):
    """Calls both ways, hung up by either; cancelled and refused while ringing; a NAT that forgets its
    mapping between calls (registered again) and during one."""
    def run():
        with two_phones(arms) as (lab, phones):
            users = ("alice", "bob")
            for here, there in ((0, 1), (1, 0)):
                caller, callee, user = phones[here], phones[there], users[there]
                for one, other in ((caller, callee), (callee, caller)):
                    up(lab, caller, callee, user)
                    one.command("hold")
                    other.wait("CALL_REMOTE_SDP")
                    one.command("resume")
                    other.wait("CALL_REMOTE_SDP")
                    end(one, other)
                ring(lab, caller, callee, user)
                end(caller, callee)  # CANCEL
                ring(lab, caller, callee, user)
                end(callee, caller)  # 486
            for here, there, nat in ((0, 1, "nat2"), (1, 0, "nat")):
                # Another mapping, and the phone registers again: it was switched off and on.
                callee = phones[there]
                callee.close()
                masquerade(lab, PORTS[1], nat)
                phones[there] = callee = register(lab, callee.namespace, callee.ip, users[there])
                caller = phones[here]
                up(lab, caller, callee, users[there])
                # Another mapping in the middle of the call: what the callee sends tells where it is now.
                masquerade(lab, PORTS[0], nat)
                callee.command("hold")
                caller.wait("CALL_REMOTE_SDP")
                end(*((caller, callee) if here else (callee, caller)))
            return "6 calls answered, 2 cancelled, 2 refused, 4 mappings"
    return run


Lab.stateful = True
RUNS = {"pair-1arm": pair(1), "pair-2arm": pair(2)}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
