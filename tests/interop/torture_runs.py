"""RFC 4475 over UDP and RFC 5118 over UDP/IPv6 against a running viaduct.

Each message is sent as a datagram; what the servers get and what the sender gets back must be what
EXPECTED.tsv says. Top Vias that name another transport are set to UDP; responses get a Via of our
own on top where the message tests more than its Via.
"""

import csv
import pathlib
import re
import select
import time

from lab import ROOT, Lab, check, main
from oracle import oracle

DATA = ROOT / "tests/data"
# The next hops that Routes of the corpus name: we are that proxy. A stranger's Route to anybody
# else is rightly refused.
ROUTE_HOST = "services.example.com"
ROUTE_ADDRESS = b"<sip:127.0.0.1:5080>"


def cases(corpus):
    with open(DATA / corpus / "EXPECTED.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


class Wire:
    """Client and server sockets in a lab."""

    def __init__(self, lab):
        self.lab = lab
        self.client = lab.socket("client", lab.client, 5060)
        self.ports = {5060: self.client}
        self.servers = [lab.socket(f"server{n}", lab.server(n), 5060) for n in (1, 2, 3)]

    def listen(self, port):
        """Opens a client socket on a port that a Via names: answers go there without rport."""
        if port not in self.ports:
            self.ports[port] = self.lab.socket("client", self.lab.client, port)

    def close(self):
        for made in (*self.ports.values(), *self.servers):
            made.close()

    def exchange(self, datagram, source=None, seconds=0.4):
        """Sends one datagram to the VIP; returns (at servers, back at the client)."""
        (source or self.client).sendto(datagram, (self.lab.vip, 5060))
        return self.collect(seconds)

    def collect(self, seconds=0.4):
        forwarded, back = [], []
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([*self.ports.values(), *self.servers], [], [], left)
            for made in ready:
                data, peer = made.recvfrom(65535)
                (forwarded if made in self.servers else back).append((made, data, peer))
            if ready:
                end = min(end, time.monotonic() + 0.1)
        return forwarded, back


def to_udp(message):
    """The message with UDP as the transport of its first Via (case and spacing kept)."""
    return re.sub(rb"(?im)^((?:Via|v)[ \t]*:\s*SIP\s*/\s*2\.0\s*/\s*)(?:TCP|TLS|SCTP|UNKNOWN)\b",
                  rb"\1UDP", message, count=1)


def own_via(wire):
    """(Via row that viaduct wrote for a probe, branch of the probe's own Via, server socket)."""
    lab = wire.lab
    call = f"probe-{time.monotonic_ns()}"
    host = lab.bracket(lab.client)
    request = (f"OPTIONS {lab.uri('probe')} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:5060;branch=z9hG4bK{call};rport\r\n"
               f"Max-Forwards: 70\r\nFrom: <sip:probe@{host}>;tag=1\r\nTo: <{lab.uri('probe')}>\r\n"
               f"Call-ID: {call}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n").encode()
    forwarded, _ = wire.exchange(request)
    check(len(forwarded) == 1, "the probe was not forwarded")
    server, data, _ = forwarded[0]
    rows = [row for row in data.split(b"\r\n") if row.lower().startswith(b"via:")]
    return rows[0], rows[1], server


def status(back):
    return [int(data.split(b" ", 2)[1]) for _, data, _ in back if data.startswith(b"SIP/2.0 ")]


def run_case(wire, corpus, case):
    """Sends one message and holds the outcome against the table."""
    name, action = case["file"], case["proxy_action"]
    path = DATA / corpus / name
    message = (path if path.exists() else path.with_name(f"{name}.dat")).read_bytes()
    is_response = message.startswith(b"SIP/")
    sender = None
    if is_response and not name.startswith("bcast"):
        # The message tests more than its Via: a Via of ours on top, and the Via it leads to.
        ours, next_via, sender = own_via(wire)
        head, rest = message.split(b"\r\n", 1)
        message = b"\r\n".join([head, ours, next_via, rest])
    else:
        message = to_udp(message).replace(ROUTE_ADDRESS, f"<sip:{wire.lab.vip}:5060>".encode())
        port = re.search(rb"(?im)^(?:Via|v)[ \t]*:\s*SIP\s*/\s*2\.0\s*/\s*\w+\s+(?:\[[^\]]*\]|[^\s:;,]+)\s*:\s*(\d+)", message)
        if port and 0 < int(port[1]) < 65536:
            wire.listen(int(port[1]))
    before = wire.lab.drops()
    forwarded, back = wire.exchange(message, source=sender)
    after = wire.lab.drops()
    codes = status(back)
    dropped = sum(after.values()) - sum(before.values())
    outcome = (f"{len(forwarded)} forwarded, answers {codes}, {dropped} dropped, "
               f"{ {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)} }")
    wants = re.split(r"\||;", action)
    if is_response:
        good = (dropped == 1 and not back if "drop" in wants else len(back) == 1)
    else:
        good = False
        for want in wants:
            want = want.removeprefix("udp:")
            code = re.search(r"\b([45]\d\d)\b", want)
            if code and codes == [int(code[1])] and not forwarded:
                good = True
            if want.startswith(("forward", "accept", "ignore", "infer", "rfc2543-fallback")) and len(forwarded) == 1 and not codes:
                good = True
    check(good, f"{name}: expected {action}, got {outcome}")
    if forwarded and not is_response:
        body = message.split(b"\r\n\r\n", 1)[1]
        got = forwarded[0][1].split(b"\r\n\r\n", 1)[1]
        length = re.search(rb"(?im)^(?:Content-Length|l)[ \t]*:\s*(\d+)", message)
        check(got == (body[:int(length[1])] if length else body), f"{name}: the body is not what was sent")
    return outcome


def torture(corpus, family):
    def run():
        with Lab(family=family) as lab:
            lab.start_viaduct(lab.config(listeners_extra=f'aliases = ["{ROUTE_HOST}"]'))
            wire = Wire(lab)
            try:
                faults, count = [], 0
                with oracle(lab, messages=False) as judge:
                    for case in cases(corpus):
                        count += 1
                        try:
                            run_case(wire, corpus, case)
                        except Exception as error:  # one bad case must not hide the others
                            faults.append(str(error))
                check(not faults, f"{len(faults)} of {count}:\n    " + "\n    ".join(faults))
                lab.conserved()
                check(lab.viaduct.poll() is None, "viaduct has ended")
                return f"{count} messages; {judge.seen} sent by viaduct with the right checksums"
            finally:
                wire.close()
    return run


def fragments():
    """A 2,500-byte INVITE arrives in fragments, by the kernel path, at its short twin's server."""
    with Lab() as lab:
        lab.start_viaduct()
        wire = Wire(lab)
        try:
            with oracle(lab) as judge:
                twins(lab, wire)
            kernel = lab.total("kernel_in_total")
            check(kernel == 20, f"{kernel} datagrams by the kernel path, 20 expected")
            check(lab.total("kernel_leak_total") == 0, "short datagrams leaked to the kernel path")
            lab.conserved()
            return f"20 pairs; {judge}"
        finally:
            wire.close()


def twins(lab, wire):
    """20 pairs of a short INVITE and one in fragments, of one Call-ID."""
    for n in range(20):
        servers = []
        for size, cseq in ((0, 1), (2000, 2)):
            body = b"x" * size
            invite = (f"INVITE {lab.uri()} SIP/2.0\r\nVia: SIP/2.0/UDP {lab.client}:5060;branch=z9hG4bKf{n}c{cseq};rport\r\n"
                      f"Max-Forwards: 70\r\nFrom: <sip:f@{lab.client}>;tag=f{n}\r\nTo: <{lab.uri()}>\r\n"
                      f"Call-ID: twin-{n}\r\nCSeq: {cseq} INVITE\r\nContact: <sip:f@{lab.client}>\r\n"
                      f"Subject: {'y' * 150}\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n").encode() + body
            forwarded, _ = wire.exchange(invite)
            check(len(forwarded) == 1, f"twin {n}: {len(forwarded)} copies of {len(invite)} bytes arrived")
            servers.append(forwarded[0][0])
            check(forwarded[0][1].split(b"\r\n\r\n", 1)[1] == body, "the body is not what was sent")
        check(servers[0] is servers[1], f"twin {n} went to another server")


if __name__ == "__main__":
    raise SystemExit(main({
        "rfc4475-udp-ipv4": torture("rfc4475", 4),
        "rfc5118-udp-ipv6": torture("rfc5118", 6),
        "fragments": fragments,
    }))
