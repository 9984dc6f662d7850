"""The judge is judged: each fault that `oracle.py` looks for, put on the wire by hand, is found.

No viaduct runs here. Frames are written from the balancer's own interface, so that they look sent by
it.
"""

import socket
import struct
import time

from conservation_runs import words
from lab import Failure, Lab, check, main
from oracle import oracle


def frame(lab, payload, sent, wrong=0):
    """An Ethernet frame to or from the balancer, with a right checksum but for `wrong`."""
    ends = [("198.18.0.1", lab.mac("lb")), ("198.18.0.100", lab.mac("client"))]
    (source, source_mac), (target, target_mac) = ends if sent else ends[::-1]
    src, dst = socket.inet_aton(source), socket.inet_aton(target)
    udp = struct.pack("!HHHH", 5060, 5060, 8 + len(payload), 0) + payload
    check_sum = (~words(src + dst + struct.pack("!BBH", 0, 17, len(udp)) + udp) & 0xffff) ^ wrong
    udp = udp[:6] + struct.pack("!H", check_sum) + udp[8:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, src, dst)
    header = header[:10] + struct.pack("!H", ~words(header) & 0xffff) + header[12:]
    macs = bytes.fromhex((target_mac + source_mac).replace(":", ""))
    return macs + b"\x08\x00" + header + udp


def request(method, *branches, hops=70, body=b""):
    return "\r\n".join([f"{method} sip:bob@198.18.0.1 SIP/2.0",
                        *(f"Via: SIP/2.0/UDP 198.18.0.100:5060;branch=z9hG4bK{branch}" for branch in branches),
                        f"Max-Forwards: {hops}", "From: <sip:a@198.18.0.100>;tag=1", "To: <sip:bob@198.18.0.1>", "Call-ID: one",
                        f"CSeq: 1 {method}", f"Content-Length: {len(body)}", "", ""]).encode() + body


def response(code, *branches, extra=b""):
    return request("INVITE", *branches).replace(
        b"INVITE sip:bob@198.18.0.1 SIP/2.0", f"SIP/2.0 {code} x".encode()).replace(b"Max-Forwards: 70\r\n", extra)


def judged(lab, *frames):
    """What the oracle says about frames (sent by the balancer?, payload, what is wrong with its sum)
    and pauses between them."""
    sockets = {}
    for name in ("lb", "client"):
        def make():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.bind(("eth0", 0))
            return made
        sockets[name] = lab.inside(name, make)
    try:
        with oracle(lab) as judge:
            for entry in frames:
                if isinstance(entry, float):
                    time.sleep(entry)
                    continue
                sent, payload, *wrong = entry
                sockets["lb" if sent else "client"].send(frame(lab, payload, sent, *wrong))
        return str(judge)
    except Failure as failure:
        return str(failure)
    finally:
        for made in sockets.values():
            made.close()


def faults():
    """Every fault is named; what is right passes."""
    invite, forwarded = request("INVITE", "a"), request("INVITE", "x", "a", hops=69)
    came = (False, invite)
    cases = {
        "1 requests and 2 responses": [came, (True, forwarded), (False, response(180, "x", "a")), (True, response(180, "a")),
                                       (False, response(200, "x", "a")), (True, response(200, "a"))],
        "1 of its own": [came, (True, response(486, "a"))],
        "forwarded twice: ": [came, (True, response(486, "a")), (True, response(486, "a"))],
        "wrong checksum": [came, (True, forwarded, 1)],
        "not SIP": [(True, b"\0\1\2\3")],
        "malformed": [came, (True, forwarded.replace(b"CSeq: 1 INVITE", b"CSeq: 1 BYE"))],
        "no request with one Via less": [came, (True, request("INVITE", "a", hops=69))],
        "no request with one Via less ": [came, (True, request("INVITE", "x", "b", hops=69))],
        "or it was forwarded twice": [came, (True, forwarded), (True, forwarded)],
        "came in, or it": [came, (True, request("INVITE", "x", "a", hops=69, body=b"changed"))],
        "Max-Forwards 70 -> 70": [came, (True, request("INVITE", "x", "a", hops=70))],
        "its transaction": [came, (True, forwarded), (False, request("CANCEL", "a")), (True, request("CANCEL", "y", "a", hops=69))],
        "nobody sent or asked for": [came, (True, forwarded), (False, response(200, "x", "a")), (True, response(200, "b"))],
        "longer than its request": [came, (True, response(486, "a", extra=b"Subject: " + b"x" * 100 + b"\r\n"))],
    }
    hold_all(cases)
    return f"{len(cases)} cases"


def transaction_faults():
    """The same for INVITE with a transaction of viaduct's own."""
    invite, forwarded, again = request("INVITE", "a"), request("INVITE", "t0x", "a", hops=69), request("INVITE", "t1x", "a", hops=69)
    begin = [(False, invite), (True, response(100, "a")), (True, forwarded)]
    ringing = [*begin, (False, response(180, "t0x", "a"))]
    tagged = b"To: <sip:bob@198.18.0.1>;tag=s"

    def answer(code, *branches, sent=False, tag=tagged):
        return sent, response(code, *branches).replace(b"To: <sip:bob@198.18.0.1>", tag)

    def own(method, branch, tag=tagged):
        return True, request(method, branch).replace(b"To: <sip:bob@198.18.0.1>", tag)

    refused = [*begin, answer(486, "t0x", "a")]
    acknowledged = [*refused, own("ACK", "t0x")]
    cases = {
        "1 INVITE transactions": [*acknowledged, answer(486, "a", sent=True), (False, request("ACK", "a"))],
        "1 INVITE transactions ": [*ringing, (True, response(180, "a")), (False, request("CANCEL", "a")), (True, request("CANCEL", "a").replace(
            b"CANCEL sip:bob@198.18.0.1 SIP/2.0", b"SIP/2.0 200 OK").replace(b"Max-Forwards: 70\r\n", b"")), own("CANCEL", "t0x")],
        "1 INVITE transactions  ": [*begin, (True, forwarded), answer(200, "t0x", "a"), answer(200, "a", sent=True)],
        "two INVITEs of one branch differ": [*begin, (True, forwarded.replace(b"From: <sip:a@", b"From: <sip:b@"))],
        "INVITE repeated after an answer": [*ringing, 0.1, (True, forwarded)],
        "with another tag": [*refused, own("ACK", "t0x", tagged + b"2")],
        "ACK without a refusal": [*ringing, own("ACK", "t0x")],
        "not acknowledged": refused,
        "that was not acknowledged": [*refused, (True, request("ACK", "t0x", "a", hops=69).replace(b"To: <sip:bob@198.18.0.1>", tagged))],
        "CANCEL before a provisional answer": [*begin, (False, request("CANCEL", "a")), own("CANCEL", "t0x")],
        "a server was tried twice": [*acknowledged, (True, again)],
        "no answer within": [(False, invite), 0.3, (True, forwarded), (True, response(100, "a"))],
        "that no server sent": [*ringing, answer(183, "a", sent=True)],
        "times 180": [*ringing, (True, response(180, "a")), (True, response(180, "a"))],
        "486 after a 2xx": [*begin, answer(200, "t0x", "a"), answer(200, "a", sent=True), answer(486, "a", sent=True)],
        "two refusals": [*acknowledged, answer(486, "a", sent=True), answer(487, "a", sent=True)],
        "0 forwarded": [*begin, answer(200, "t0x", "a")],
        "3 times 2xx": [*begin, *[answer(200, "t0x", "a")] * 3, *[answer(200, "a", sent=True)] * 2],
        "1 answers to 0 CANCELs": [*ringing, (True, request("CANCEL", "a").replace(
            b"CANCEL sip:bob@198.18.0.1 SIP/2.0", b"SIP/2.0 200 OK").replace(b"Max-Forwards: 70\r\n", b""))],
    }
    hold_all(cases)
    return f"{len(cases)} cases"


def hold_all(cases):
    """Each case's frames, and what the oracle must say about them."""
    with Lab() as lab:
        for text, frames in cases.items():
            said = judged(lab, *frames)
            check(text.strip() in said, f"expected '{text}', the oracle says: {said}")


if __name__ == "__main__":
    raise SystemExit(main({"faults": faults, "transaction-faults": transaction_faults}))
