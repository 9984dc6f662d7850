"""What a farm does besides taking calls: calls out to a carrier, calls to itself, and the dialogs
that are not plain calls (SUBSCRIBE, REFER, PRACK, UPDATE, MESSAGE, PUBLISH).

Every run is judged by tshark, see `oracle.py`.
"""

import contextlib

from lab import Lab, check, main
from oracle import oracle
from sipp_runs import BUFFER, SCENARIOS, statistics
from ua import Dialog, Ua, answer, establish, expect, nothing, transact


def carrier_address(family):
    return "198.18.2.10" if family == 4 else "2001:db8::2:10"


@contextlib.contextmanager
def field(family=4, arms=1, extra="", config=None):
    """A lab with viaduct, a carrier and Python user agents: (lab, client, servers, carrier)."""
    with Lab(family=family, arms=arms, extra=extra) as lab:
        # The other family too, so that the lab is the same for both.
        lab.add("carrier", "br-out", "198.18.2.10/16", "2001:db8::2:10/64")
        lab.start_viaduct(config(lab) if config else None)
        with oracle(lab) as judge:
            proxy = (lab.farm_address, 5060)
            agents = [Ua(lab, "client", lab.client),
                      *(Ua(lab, f"server{n}", lab.server(n), proxy=proxy) for n in (1, 2, 3)),
                      Ua(lab, "carrier", carrier_address(family))]
            try:
                yield lab, agents[0], agents[1:4], agents[4]
                nothing(agents)
                check(lab.viaduct.poll() is None, "viaduct has ended")
                lab.conserved()
                check(not lab.drops(), f"drops {lab.drops()}")
            finally:
                for agent in agents:
                    agent.close()
        print(f"    {judge}", flush=True)


def own_routes(lab, dialog):
    """How many of our own Record-Route values a dialog has."""
    own = [f"{lab.bracket(ip)}" for ip in {lab.vip, lab.farm_address}]
    return sum(any(f"sip:{ip}" in route or f"@{ip}" in route for ip in own) for route in dialog.routes)


def carrier_calls(family, arms, how):
    """A farm member calls out, by literal Request-URI, by Route, or by an egress rule."""
    def config(lab):
        hop = f"{lab.bracket(carrier_address(family))}:5060"
        return lab.config() + ('[[routes]]\npool = "farm"\n'
                               f'[[routes]]\nname = "carrier"\nfrom = "farm"\nnext_hop = "{hop}"\n')

    def run():
        with field(family, arms, config=config if how == "rule" else None) as (lab, _, servers, carrier):
            number = f"sip:+4930@{carrier.host}"
            routes = []
            if how == "route":
                routes = [f"<sip:{lab.bracket(lab.farm_address)}:5060;lr>", f"<sip:{carrier.host};lr>"]
            for n, server in enumerate(servers):
                uri = {"literal": number, "route": "sip:+4930@carrier.example.com",
                       "rule": ("tel:+4930", "sip:+4930@carrier.example.com", number)[n]}[how]
                # Answered; hung up by either side.
                for who in (0, 1):
                    call = establish(server, [carrier], uri, routes)
                    check(own_routes(lab, call[1]) == arms, f"{own_routes(lab, call[1])} Record-Routes, {call[1].routes}")
                    transact(call[who], call[1 - who], "BYE")
                # Refused, and cancelled.
                for code in (486, 487):
                    out = server.dialog(uri, routes=routes)
                    out.send("INVITE")
                    _, invite = expect(carrier, "INVITE")
                    if code == 487:
                        carrier.respond(invite, 180)
                        expect(server, 180)
                        out.cancel()
                        _, cancel = expect(carrier, "CANCEL")
                        check(cancel.branch == invite.branch, "CANCEL with another branch")
                        carrier.respond(cancel, 200)
                        expect(server, 200)
                    carrier.respond(invite, code)
                    _, response = expect(server, code)
                    out.ack(response)
                    _, ack = expect(carrier, "ACK")
                    check(ack.branch == invite.branch, "ACK with another branch")
            return "12 calls of three servers"
    return run


def carrier_sipp(arms):
    """SIPp on a farm member calls SIPp at the carrier through viaduct."""
    def run():
        with Lab(arms=arms) as lab:
            lab.add("carrier", "br-out", "198.18.2.10/16")
            lab.start_viaduct()
            calls = 2000
            with oracle(lab) as judge:
                for uac, uas in (("uac_record_route", "uas_record_route"), ("uac_server_bye", "uas_server_bye")):
                    answerer = lab.popen("carrier", ["sipp", "-sf", SCENARIOS / f"{uas}.xml", "-i", "198.18.2.10", "-p", "5060",
                                                     "-nostdin", "-buff_size", BUFFER], "uas.log")
                    code, _ = lab.run(
                        "server1", ["sipp", "-sf", SCENARIOS / f"{uac}.xml", "-s", "+4930", "-i", lab.server(1), "-p", "5060",
                                    "-m", calls // 2, "-r", 300, "-nostdin", "-recv_timeout", "10000", "-buff_size", BUFFER,
                                    "-trace_stat", "-stf", "uac_.csv", "-fd", "1", "-rsa", f"{lab.farm_address}:5060",
                                    "198.18.2.10:5060"], 60)
                    row = statistics(lab.path)
                    check(code == 0 and int(row["SuccessfulCall(C)"]) == calls // 2, f"exit {code}: {row}\ndrops {lab.drops()}")
                    lab.end(answerer)
            lab.conserved()
            return f"{calls} calls; {judge}"
    return run


def hairpin(arms):
    """A farm member calls our own URI, another answers; either hangs up."""
    def run():
        with field(arms=arms) as (lab, _, servers, _):
            done = 0
            while done < 6:
                caller = servers[done % 3]
                uri = f"sip:bob@{lab.bracket(lab.farm_address)}:5060"
                out = caller.dialog(uri)
                out.send("INVITE")
                at, invite = expect(servers, "INVITE")
                if at is caller:  # the table may choose the caller itself
                    at.respond(invite, 486)
                    if lab.stateful:  # the ACK is viaduct's own
                        expect(caller, "ACK")
                        out.ack(expect(caller, 486)[1])
                    else:
                        out.ack(expect(caller, 486)[1])
                        expect(caller, "ACK")
                    continue
                out, back = answer(out, at, invite)
                transact(out, back, "INFO")
                transact(back, out, "INFO")
                transact(*((out, back) if done % 2 else (back, out)), "BYE")
                done += 1
            return f"{done} calls inside the farm"
    return run


def early_notify():
    """NOTIFY before the 200 of its SUBSCRIBE; refreshes; the subscription ends by NOTIFY."""
    with field() as (lab, client, servers, _):
        for _ in range(6):
            out = client.dialog(lab.uri("presence"))
            out.send("SUBSCRIBE", extra=["Event: presence", "Expires: 600"])
            at, subscribe = expect(servers, "SUBSCRIBE")
            back = Dialog.of(at, subscribe)
            back.send("NOTIFY", extra=["Event: presence", "Subscription-State: active"])
            _, notify = expect(client, "NOTIFY")
            client.respond(notify, 200)
            expect(at, 200)
            at.respond(subscribe, 200, extra=["Expires: 600"])
            out.learn(expect(client, 200)[1])
            transact(out, back, "SUBSCRIBE", extra=["Event: presence", "Expires: 600"])
            transact(back, out, "NOTIFY", extra=["Event: presence", "Subscription-State: terminated"])
        return "6 subscriptions"


def transfer():
    """Attended transfer: REFER to one server names a dialog with another by Replaces."""
    with field() as (lab, client, servers, _):
        first = establish(client, servers, lab.uri("bob"))
        while True:
            second = establish(client, servers, lab.uri("carol"))
            if second[1].ua is not first[1].ua:
                break
            transact(*second, "BYE")
        bob, carol = first[1], second[1]
        replaces = f"{second[0].call_id};to-tag={second[0].remote_tag};from-tag={second[0].local_tag}"
        where = second[0].target
        refer = transact(first[0], bob, "REFER", 202, extra=[f"Refer-To: <{where}?Replaces={replaces.replace(';', '%3B')}>"])
        check("Replaces=" in refer.one("refer-to"), "Refer-To changed")
        transact(bob, first[0], "NOTIFY", extra=["Event: refer", "Subscription-State: active"])
        taken = bob.ua.dialog(where)
        taken.send("INVITE", extra=[f"Replaces: {replaces}"])
        at, invite = expect(servers, "INVITE")
        check(at is carol.ua and invite.one("replaces") == replaces, "the INVITE with Replaces is elsewhere or changed")
        taken, other = answer(taken, at, invite)
        transact(carol, second[0], "BYE")
        transact(bob, first[0], "NOTIFY", extra=["Event: refer", "Subscription-State: terminated"])
        transact(first[0], bob, "BYE")
        transact(other, taken, "BYE")
        return "two calls became one"


def pickup():
    """A new call with Replaces or Join comes to the server that has the dialog it names."""
    with field() as (lab, client, servers, carrier):
        for n in range(12):
            out, back = establish(client, servers, lab.uri("bob"))
            name = ("Replaces", "Join")[n % 2]
            named = f"{out.call_id};to-tag={out.remote_tag};from-tag={out.local_tag}"
            other = carrier.dialog(lab.uri("bob"))
            other.send("INVITE", extra=[f"{name}: {named}"])
            at, invite = expect(servers, "INVITE")
            check(at is back.ua, f"{name} at {at.namespace}, the dialog at {back.ua.namespace}")
            check(invite.one(name.lower()) == named, f"{name} changed")
            other, its = answer(other, at, invite)
            transact(its, other, "BYE")
            transact(back, out, "BYE")
        return "12 calls picked up"


def early_media():
    """183 with 100rel: PRACK, UPDATE from both sides, all before the answer."""
    with field() as (lab, client, servers, _):
        for _ in range(6):
            out = client.dialog(lab.uri())
            out.send("INVITE", extra=["Supported: 100rel"])
            at, invite = expect(servers, "INVITE")
            back = Dialog.of(at, invite)
            at.respond(invite, 183, extra=["Require: 100rel", "RSeq: 1"])
            out.learn(expect(client, 183)[1])
            prack = transact(out, back, "PRACK", extra=["RAck: 1 1 INVITE"])
            check(prack.one("rack") == "1 1 INVITE", "RAck changed")
            transact(out, back, "UPDATE")
            transact(back, out, "UPDATE")
            at.respond(invite, 200)
            out.ack(expect(client, 200)[1])
            expect(at, "ACK")
            transact(back, out, "INVITE")
            back.ack(_final(back))
            expect(client, "ACK")
            transact(back, out, "BYE")
        return "6 calls"


def _final(dialog):
    """A 200 to acknowledge, as `ack` reads it."""
    class Ok:
        status = 200
    return Ok


def pages():
    """MESSAGE both ways outside of dialogs; a server's to a client's own address."""
    with field() as (lab, client, servers, _):
        for n in range(10):
            # Bodies are bytes: an SMS in a MESSAGE is not text (RFC 3428 §4, 3GPP TS 24.341).
            text = f"text {n}".encode() if n % 2 else bytes(range(256))
            out = client.dialog(lab.uri("bob"))
            out.send("MESSAGE", body=text, extra=["Content-Type: text/plain"])
            at, message = expect(servers, "MESSAGE")
            check(message.body == text and not message.all("record-route"), f"{message}")
            at.respond(message, 202)
            expect(client, 202)
            back = at.dialog(f"sip:alice@{client.host}")
            back.send("MESSAGE", body=text, extra=["Content-Type: text/plain"])
            _, message = expect(client, "MESSAGE")
            client.respond(message, 200)
            expect(at, 200)
        return "20 messages"


def publications(lab, client, servers, call_ids):
    """One address-of-record publishes again and again; the servers that got it."""
    where, tag = [], None
    for n in range(8):
        out = client.dialog(lab.uri("alice"), call_id=call_ids and f"pub-{lab.prefix}{call_ids}")
        out.cseq = n
        out.send("PUBLISH", extra=["Event: presence", "Expires: 60", *([f"SIP-If-Match: {tag}"] if tag else [])])
        at, publish = expect(servers, "PUBLISH")
        check(tag is None or publish.one("sip-if-match") == tag, "SIP-If-Match changed")
        tag = f"e{n}{at.namespace}"
        at.respond(publish, 200, extra=[f"SIP-ETag: {tag}"])
        check(expect(client, 200)[1].one("sip-etag") == tag, "SIP-ETag changed")
        where.append(at.namespace)
    return where


def publish():
    """PUBLISH refreshed with its Call-ID stays at its server."""
    with field() as (lab, client, servers, _):
        for n in (1, 2, 3):
            check(len(set(publications(lab, client, servers, n))) == 1, "a refresh went elsewhere")
        return "3 publications, 24 requests"


def publish_aor():
    """With key = "aor", PUBLISH and REGISTER of a user stay at one server, with any Call-ID."""
    def config(lab):
        return lab.config() + '[[routes]]\npool = "farm"\nmethods = ["PUBLISH", "REGISTER"]\nkey = "aor"\n[[routes]]\npool = "farm"\n'
    with field(config=config) as (lab, client, servers, _):
        check(len(set(publications(lab, client, servers, None))) == 1, "a refresh went elsewhere")
        chosen = set()
        for n in range(20):
            for _ in range(3):
                aor = f"sip:user{n}@{lab.bracket(lab.vip)}:5060"
                out = client.dialog(f"sip:{lab.bracket(lab.vip)}:5060", local=f"<{aor}>", remote=f"<{aor}>")
                out.send("REGISTER", extra=["Expires: 60"])
                at, register = expect(servers, "REGISTER")
                at.respond(register, 200)
                expect(client, 200)
                chosen.add((n, at.namespace))
        check(len(chosen) == 20, f"users at more than one server: {sorted(chosen)}")
        check(len({name for _, name in chosen}) == 3, f"not all servers have users: {sorted(chosen)}")
        return "8 PUBLISH, 60 REGISTER of 20 users"


RUNS = {"hairpin-1arm": hairpin(1), "hairpin-2arm": hairpin(2), "early-notify": early_notify, "transfer": transfer, "pickup": pickup,
        "early-media": early_media, "message": pages, "publish": publish, "publish-aor": publish_aor,
        "carrier-sipp-1arm": carrier_sipp(1), "carrier-sipp-2arm": carrier_sipp(2)}
for _how in ("literal", "route", "rule"):
    for _family in (4, 6):
        for _arms in (1, 2):
            RUNS[f"carrier-{_how}-ipv{_family}-{_arms}arm"] = carrier_calls(_family, _arms, _how)

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
