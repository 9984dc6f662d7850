"""The race conditions of RFC 5407 §3 with viaduct between, INVITE with a transaction: messages that
cross on the wire all arrive, each once, and every answer finds its request.
"""

from field_runs import field
from lab import Lab, check, main
from ua import SDP, Dialog, Message, establish, expect, nothing, transact

TIMES = 6


def gather(*wanted):
    """One message each for (user agent, method or (status, method)), in any order among the agents
    and at each of them; returns them in the order asked for."""
    found, missing = {}, list(range(len(wanted)))
    while missing:
        at = {wanted[n][0] for n in missing}
        for ua in at:
            got = next_at(ua)
            name = (got.status, got.method) if got.status else got.method
            n = next((n for n in missing if wanted[n] == (ua, name)), None)
            check(n is not None, f"unexpected at {ua.namespace}: {got}; awaited {[wanted[n][1] for n in missing]}")
            missing.remove(n)
            found[n] = got
            break
    return [found[n] for n in range(len(wanted))]


def next_at(ua):
    """The next message that is not a 100."""
    while True:
        ua.socket.settimeout(3)
        try:
            got = Message(*ua.socket.recvfrom(65535))
        except TimeoutError:
            check(False, f"nothing came to {ua.namespace} within 3 s")
        if got.status != 100:
            return got


def ringing(lab, client, servers):
    """A call that rings: (caller's side, server, its INVITE, callee's side)."""
    out = client.dialog(lab.uri())
    out.send("INVITE", body=SDP)
    at, invite = expect(servers, "INVITE")
    at.respond(invite, 180)
    out.learn(expect(client, 180)[1])
    return out, at, invite, Dialog.of(at, invite)


def hang_up(out, back):
    transact(out, back, "BYE")


def invite_again(lab, client, servers):
    """§3.1.1: the INVITE is repeated while its 200 is on its way; the 200 is repeated, and acknowledged again."""
    out = client.dialog(lab.uri())
    out.send("INVITE", body=SDP)
    at, invite = expect(servers, "INVITE")
    back = Dialog.of(at, invite)
    at.respond(invite, 180)
    at.respond(invite, 200, body=SDP)
    out.send("INVITE", branch=out.invite[0], cseq=out.invite[1], body=SDP)
    gather((client, (180, "INVITE")), (client, (200, "INVITE")))
    at.respond(invite, 200, body=SDP)
    ok = expect(client, 200)[1]
    out.learn(ok)
    for _ in range(2):
        out.ack(ok)
        expect(at, "ACK")
    nothing([at], 0.1)
    hang_up(out, back)


def cancel_crosses_answer(lab, client, servers):
    """§3.1.2: the CANCEL passes the 200: there is a call, and it is hung up."""
    out, at, invite, back = ringing(lab, client, servers)
    out.cancel()
    cancel = expect(at, "CANCEL")[1]  # on its way to the caller is the 200 to it, which viaduct gives
    at.respond(invite, 200, body=SDP)
    at.respond(cancel, 481)
    _, ok = gather((client, (200, "CANCEL")), (client, (200, "INVITE")))
    out.learn(ok)
    out.ack(ok)
    expect(at, "ACK")
    hang_up(out, back)


def cancel_too_late(lab, client, servers):
    """§3.1.2: the CANCEL comes after the 200 has passed: it is answered and goes no further."""
    out, at, invite, back = ringing(lab, client, servers)
    at.respond(invite, 200, body=SDP)
    ok = expect(client, 200)[1]
    out.cancel()
    expect(client, 200)
    nothing([at], 0.1)
    out.learn(ok)
    out.ack(ok)
    expect(at, "ACK")
    hang_up(out, back)


def bye_crosses_answer(lab, client, servers):
    """§3.1.3: the caller hangs up the early dialog while the 200 is on its way."""
    out, at, invite, _ = ringing(lab, client, servers)
    out.send("BYE")
    at.respond(invite, 200, body=SDP)
    bye, ok = gather((at, "BYE"), (client, (200, "INVITE")))
    out.ack(ok)
    expect(at, "ACK")
    at.respond(bye, 200)
    expect(client, 200)


def reinvite_before_ack(lab, client, servers):
    """§3.1.4, §3.1.5: a re-INVITE overtakes the ACK."""
    out, at, invite, back = ringing(lab, client, servers)
    at.respond(invite, 200, body=SDP)
    ok = expect(client, 200)[1]
    out.learn(ok)
    first = out.invite
    out.send("INVITE", body=SDP)
    again = expect(at, "INVITE")[1]
    second, out.invite = out.invite, first
    out.ack(ok)
    check(expect(at, "ACK")[1].cseq == first[1], "the ACK of another INVITE")
    at.respond(again, 200, body=SDP)
    out.invite = second
    out.ack(expect(client, 200)[1])
    check(expect(at, "ACK")[1].cseq == second[1], "the ACK of another INVITE")
    hang_up(out, back)


def bye_before_ack(lab, client, servers):
    """§3.1.6: the BYE overtakes the ACK."""
    out, at, invite, _ = ringing(lab, client, servers)
    at.respond(invite, 200, body=SDP)
    ok = expect(client, 200)[1]
    out.learn(ok)
    out.send("BYE")
    bye = expect(at, "BYE")[1]
    out.ack(ok)
    expect(at, "ACK")
    at.respond(bye, 200)
    expect(client, 200)


def both_hang_up(lab, client, servers):
    """§3.2.1: two BYEs cross."""
    out, back = establish(client, servers, lab.uri())
    at = back.ua
    out.send("BYE")
    back.send("BYE")
    one, other = gather((at, "BYE"), (client, "BYE"))
    at.respond(one, 200)
    client.respond(other, 481)
    gather((client, (200, "BYE")), (at, (481, "BYE")))


def reinvite_crosses_bye(lab, client, servers):
    """§3.2.2: a re-INVITE of the callee crosses the caller's BYE; its 481 is acknowledged."""
    out, back = establish(client, servers, lab.uri())
    at = back.ua
    out.send("BYE")
    back.send("INVITE", body=SDP)
    bye, again = gather((at, "BYE"), (client, "INVITE"))
    client.respond(again, 481)
    at.respond(bye, 200)
    # The ACK at the client is viaduct's, the one of the callee goes no further.
    _, refused, _ = gather((client, (200, "BYE")), (at, (481, "INVITE")), (client, "ACK"))
    back.ack(refused)


def bye_crosses_reinvite_answer(lab, client, servers):
    """§3.2.3: the callee's 200 to a re-INVITE crosses the caller's BYE."""
    out, back = establish(client, servers, lab.uri())
    at = back.ua
    out.send("INVITE", body=SDP)
    again = expect(at, "INVITE")[1]
    out.send("BYE")
    at.respond(again, 200, body=SDP)
    bye, ok = gather((at, "BYE"), (client, (200, "INVITE")))
    out.ack(ok)
    expect(at, "ACK")
    at.respond(bye, 200)
    expect(client, 200)


def callee_hangs_up_at_once(lab, client, servers):
    """§3.2.4: the callee's BYE follows its 200, before any ACK."""
    out, at, invite, back = ringing(lab, client, servers)
    at.respond(invite, 200, body=SDP)
    back.send("BYE")
    ok, bye = gather((client, (200, "INVITE")), (client, "BYE"))
    out.learn(ok)
    out.ack(ok)
    client.respond(bye, 200)
    gather((at, "ACK"), (at, (200, "BYE")))


def reinvites_cross(lab, client, servers):
    """§3.3.1: re-INVITEs of both sides cross: 491 to both, then one goes through."""
    out, back = establish(client, servers, lab.uri())
    at = back.ua
    out.send("INVITE", body=SDP)
    back.send("INVITE", body=SDP)
    one, other = gather((at, "INVITE"), (client, "INVITE"))
    at.respond(one, 491)
    client.respond(other, 491)
    refused, theirs, _, _ = gather((client, (491, "INVITE")), (at, (491, "INVITE")), (client, "ACK"), (at, "ACK"))
    out.ack(refused)
    back.ack(theirs)
    out.send("INVITE", body=SDP)
    at.respond(expect(at, "INVITE")[1], 200, body=SDP)
    out.ack(expect(client, 200)[1])
    expect(at, "ACK")
    hang_up(out, back)


def update_crosses_reinvite(lab, client, servers):
    """§3.3.2: an UPDATE and a re-INVITE cross."""
    out, back = establish(client, servers, lab.uri())
    at = back.ua
    out.send("UPDATE", body=SDP)
    back.send("INVITE", body=SDP)
    update, again = gather((at, "UPDATE"), (client, "INVITE"))
    at.respond(update, 491)
    client.respond(again, 491)
    _, refused, _ = gather((client, (491, "UPDATE")), (at, (491, "INVITE")), (client, "ACK"))
    back.ack(refused)
    hang_up(out, back)


def refer_crosses_bye(lab, client, servers):
    """§3.3.3: a REFER crosses the BYE that ends its dialog."""
    out, back = establish(client, servers, lab.uri())
    at = back.ua
    out.send("REFER", extra=["Refer-To: <sip:carol@example.com>"])
    back.send("BYE")
    refer, bye = gather((at, "REFER"), (client, "BYE"))
    at.respond(refer, 481)
    client.respond(bye, 200)
    gather((client, (481, "REFER")), (at, (200, "BYE")))


def refusal_repeated(lab, client, servers):
    """RFC 3261 §17.1.1.3, §17.2.1: a refusal that comes again is acknowledged again, and the caller,
    whose ACK is lost, gets it again."""
    out = client.dialog(lab.uri())
    out.send("INVITE", body=SDP)
    at, invite = expect(servers, "INVITE")
    at.respond(invite, 486)
    expect(at, "ACK")
    at.respond(invite, 486)
    expect(at, "ACK")
    first, second = expect(client, 486)[1], expect(client, 486, 1.5)[1]
    check(first.data == second.data, "the repeated refusal is another")
    out.ack(second)
    nothing([client, at], 0.7)


Lab.stateful = True
STORIES = (invite_again, cancel_crosses_answer, cancel_too_late, bye_crosses_answer, reinvite_before_ack, bye_before_ack, both_hang_up,
           reinvite_crosses_bye, bye_crosses_reinvite_answer, callee_hangs_up_at_once, reinvites_cross, update_crosses_reinvite,
           refer_crosses_bye, refusal_repeated)


def all_races():
    with field() as (lab, client, servers, _):
        for story in STORIES:
            for _ in range(TIMES):
                try:
                    story(lab, client, servers)
                    nothing([client, *servers], 0.03)
                except Exception as error:
                    raise type(error)(f"{story.__name__}: {error}") from error
        return f"{TIMES * len(STORIES)} calls, {len(STORIES)} races"


if __name__ == "__main__":
    raise SystemExit(main({"races": all_races}))
