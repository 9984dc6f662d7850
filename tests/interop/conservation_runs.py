"""Bad input of any kind is a counted drop or an answer, and the sums close.

Frames are written with a packet socket, so that checksums, lengths and tags can be wrong.
"""

import random
import socket
import struct
import time

from lab import Lab, check, main
from oracle import oracle
from torture_runs import Wire


def words(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[:len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


class Raw:
    """Writes Ethernet frames from the client's interface."""

    def __init__(self, lab):
        self.lab = lab
        def make():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.bind(("eth0", 0))
            return made
        self.socket = lab.inside("client", make)
        mac = lambda name: bytes.fromhex(
            lab.run(name, ["cat", "/sys/class/net/eth0/address"], 5)[1].strip().replace(":", ""))
        self.macs = mac("lb") + mac("client")

    def ipv4(self, payload, source="198.18.0.100", port=5060, udp_checksum=None, ip_checksum=None,
             udp_length=None, fragment=0, cut=None, protocol=17, destination=5060, tag=None):
        src, dst = socket.inet_aton(source), socket.inet_aton(self.lab.vip)
        length = 8 + len(payload) if udp_length is None else udp_length
        udp = struct.pack("!HHHH", port, destination, length, 0) + payload
        pseudo = src + dst + struct.pack("!BBH", 0, 17, length)
        check_sum = (~words(pseudo + udp) & 0xffff) or 0xffff
        if udp_checksum is not None:
            check_sum = udp_checksum(check_sum) if callable(udp_checksum) else udp_checksum
        udp = udp[:6] + struct.pack("!H", check_sum) + udp[8:]
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, fragment, 64, protocol, 0, src, dst)
        right = ~words(header) & 0xffff
        header = header[:10] + struct.pack("!H", right if ip_checksum is None else ip_checksum) + header[12:]
        ethernet = self.macs + (struct.pack("!HH", 0x8100, tag) if tag is not None else b"") + b"\x08\x00"
        frame = ethernet + header + udp
        self.socket.send(frame if cut is None else frame[:cut])

    def close(self):
        self.socket.close()


def options(lab, n, extra=b""):
    host = lab.client
    return (f"OPTIONS {lab.uri('bob')} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:5060;branch=z9hG4bKx{n};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:f@{host}>;tag=x{n}\r\nTo: <{lab.uri('bob')}>\r\n"
            f"Call-ID: c{n}\r\nCSeq: 1 OPTIONS\r\n").encode() + extra + b"Content-Length: 4\r\n\r\nbody"


def flipped_bits():
    """A datagram with one flipped bit is dropped, never forwarded; the intact one is forwarded."""
    with Lab() as lab:
        lab.start_viaduct()
        wire, raw = Wire(lab), Raw(lab)
        try:
            with oracle(lab) as judge:
                wire.exchange(options(lab, 0))
                raw.ipv4(options(lab, 1))
                forwarded, _ = wire.collect()
                check(len(forwarded) == 1, "an intact frame was not forwarded")
                for bit in range(8):
                    message = bytearray(options(lab, 2))
                    right = None
                    def wrong(value, b=bit):
                        return value ^ (1 << b)
                    raw.ipv4(bytes(message), udp_checksum=wrong)
                forwarded, back = wire.collect()
                check(not forwarded and not back, f"{len(forwarded)} flipped frames were forwarded")
                check(lab.drops().get("udp_checksum") == 8, f"drops {lab.drops()}")
                raw.ipv4(options(lab, 3), udp_checksum=0)
                forwarded, _ = wire.collect()
                check(len(forwarded) == 1, "checksum 0 (none, legal on IPv4) was not forwarded")
            lab.conserved()
            return str(judge)
        finally:
            wire.close()
            raw.close()


def garbage():
    """20,000 datagrams of rubbish: random, cut, mutated, noise. The sums close, calls go on."""
    random.seed(3261)
    with Lab() as lab:
        lab.start_viaduct()
        wire, raw = Wire(lab), Raw(lab)
        try:
            with oracle(lab, messages=False) as judge:
                wire.exchange(options(lab, 0))
                good = options(lab, 1)
                for n in range(5000):
                    raw.ipv4(random.randbytes(random.randrange(0, 1400)))
                    cut = random.randrange(0, len(good))
                    raw.ipv4(good[:cut])
                    mutated = bytearray(good)
                    for _ in range(random.randrange(1, 6)):
                        mutated[random.randrange(len(mutated))] = random.randrange(256)
                    raw.ipv4(bytes(mutated))
                    raw.ipv4(random.choice([b"", b"\r\n\r\n", b"\0\0\0\0", b"\0\1\0\0" + random.randbytes(16), b"\xf8" + random.randbytes(30)]))
                    if n % 100 == 0:
                        time.sleep(0.02)
                        wire.collect(0.001)
                for cut in range(14, 90):
                    raw.ipv4(good, cut=cut)
                for length in (0, 7, 8, 9, 65535):
                    raw.ipv4(good, udp_length=length)
                wire.collect(1)
                check(lab.viaduct.poll() is None, f"viaduct has ended\n{lab.log('viaduct.log')}")
            received, sent, drops = lab.conserved()
            check(received > 15000, f"only {received} datagrams arrived")
            forwarded, _ = wire.exchange(options(lab, 2))
            check(len(forwarded) == 1, "a good request is not forwarded any more")
            return f"{received} in, {sent} out, {drops} dropped: {sorted(lab.drops())}; {judge.seen} with the right checksums"
        finally:
            wire.close()
            raw.close()


def silence():
    """Denied sources, keepalives and strange ports get nothing back, and each has its counter."""
    with Lab() as lab:
        lab.start_viaduct(lab.config(listeners_extra='deny = ["198.18.0.150/32"]'))
        wire = Wire(lab)
        denied = lab.socket("client", "198.18.0.150", 5060)
        try:
            with oracle(lab) as judge:
                forwarded, back = wire.exchange(options(lab, 1), source=denied)
                check(not forwarded and not back, "a denied source was served")
                for noise in (b"\r\n\r\n", b"\r\n", b"\0\0\0\0", b""):
                    forwarded, back = wire.exchange(noise)
                    check(not forwarded and not back, f"{noise!r} had an effect")
                check(lab.drops().get("keepalive") == 4, f"drops {lab.drops()}")
                steering = {labels["verdict"]: value for name, labels, value in lab.metrics() if name == "steering_total"}
                denied_count = sum(value for verdict, value in steering.items() if "den" in verdict)
                check(denied_count == 1, f"steering {steering}")
            lab.conserved()
            return str(judge)
        finally:
            wire.close()
            denied.close()


def workers():
    """Two workers: XDP gives each message to its call's home; what has too long a Call-ID for it and
    lands on the wrong one is handed over; the sums close."""
    with Lab(queues=2, workers=2) as lab:
        lab.start_viaduct()
        wire = Wire(lab)
        try:
            with oracle(lab) as judge:
                servers = {}
                for n in range(200):
                    if n == 100:
                        check(lab.total("hand_over_out_total") == 0, "handed over, though XDP knows the home")
                        check(lab.total("steered_total", by="queue") == 0, "a Call-ID was not found")
                    message = options(lab, n)
                    if n >= 100:
                        message = message.replace(b"Call-ID: c", b"Call-ID: " + 130 * b"c")
                    for _ in range(2):
                        forwarded, _ = wire.exchange(message, seconds=0.2)
                        check(len(forwarded) == 1, f"request {n}: {len(forwarded)} copies")
                        server, data, _ = forwarded[0]
                        check(servers.setdefault(n, (server, data)) == (server, data), f"request {n} changed")
            check(lab.total("hand_over_out_total") > 0, "nothing was handed over")
            check(lab.total("hand_over_in_total") == lab.total("hand_over_out_total"), "hand-overs were lost")
            lab.conserved()
            return f"{lab.total('hand_over_out_total')} handed over; {judge}"
        finally:
            wire.close()


if __name__ == "__main__":
    raise SystemExit(main({"flipped-bits": flipped_bits, "garbage": garbage, "silence": silence, "workers": workers}))
