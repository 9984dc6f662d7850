"""The judge is judged: each fault that `oracle.py` looks for, put on the wire by hand, is found.

No viaduct runs here. Frames are written from the balancer's own interface, so that they look sent by
it.
"""

import socket
import struct

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
    """What the oracle says about frames (sent by the balancer?, payload, what is wrong with its sum)."""
    sockets = {}
    for name in ("lb", "client"):
        def make():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.bind(("eth0", 0))
            return made
        sockets[name] = lab.inside(name, make)
    try:
        with oracle(lab) as judge:
            for sent, payload, *wrong in frames:
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
        "1 own answers": [came, (True, response(486, "a"))],
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
    with Lab() as lab:
        for text, frames in cases.items():
            said = judged(lab, *frames)
            check(text.strip() in said, f"expected '{text}', the oracle says: {said}")
    return f"{len(cases)} cases"


if __name__ == "__main__":
    raise SystemExit(main({"faults": faults}))
