"""A bad network between viaduct and all others: loses, duplicates and delays datagrams, by a seed.

As a program (in a namespace of two interfaces, which are on two bridges) it carries every frame from
one to the other; of the UDP datagrams it loses, doubles and holds back a share each. As a module it
puts itself into a lab:

    client, servers ── br-out ── wan ── br-lb ── lb
"""

import argparse
import contextlib
import heapq
import json
import pathlib
import random
import select
import signal
import socket
import struct
import sys
import time

SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
# What is held back is overtaken by what follows within this time: some datagrams of the same call.
HOLD_SECONDS = (0.002, 0.03)


def is_datagram(frame):
    """Whether a frame carries UDP (or a fragment of it)."""
    kind = frame[12:14]
    return (kind == b"\x08\x00" and frame[23] == 17) or (kind == b"\x86\xdd" and frame[20] in (17, 44))


def port(interface):
    """A socket that sees what an interface receives, and sends by it."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    made.setblocking(False)
    made.bind((interface, ETH_P_ALL))
    return made


def carry(interfaces, lose, duplicate, delay, seed, counts):
    """Carries frames until a signal ends the program."""
    ports = [port(interface) for interface in interfaces]
    others = {ports[0]: ports[1], ports[1]: ports[0]}
    chance, held, number = random.Random(seed), [], 0
    poll = select.epoll()
    by_descriptor = {made.fileno(): made for made in ports}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    try:
        print("carrying", flush=True)
        while True:
            for descriptor, _ in poll.poll(max(0, held[0][0] - time.monotonic()) if held else 1):
                source = by_descriptor[descriptor]
                send, receive = others[source].send, source.recv
                for _ in range(64):
                    try:
                        frame = receive(65536)
                    except BlockingIOError:
                        break
                    if not is_datagram(frame):
                        send(frame)
                        continue
                    counts["datagrams"] += 1
                    fate = chance.random()
                    if fate < lose:
                        counts["lost"] += 1
                    elif fate < lose + duplicate:
                        counts["duplicated"] += 1
                        send(frame)
                        send(frame)
                    elif fate < lose + duplicate + delay:
                        counts["delayed"] += 1
                        number += 1
                        heapq.heappush(held, (time.monotonic() + chance.uniform(*HOLD_SECONDS), number, send, frame))
                    else:
                        send(frame)
            now = time.monotonic()
            while held and held[0][0] <= now:
                _, _, send, frame = heapq.heappop(held)
                send(frame)
    finally:
        for made in ports:
            # What the program itself was too slow for is no chance of the seed.
            counts["overflow"] += struct.unpack("II", made.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("interfaces", nargs=2)
    for name in ("lose", "duplicate", "delay"):
        parser.add_argument(f"--{name}", type=float, default=0.05, help="share of the datagrams")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    counts = dict.fromkeys(("datagrams", "lost", "duplicated", "delayed", "overflow"), 0)
    begin = time.process_time()
    try:
        carry(arguments.interfaces, arguments.lose, arguments.duplicate, arguments.delay, arguments.seed, counts)
    finally:
        micros = 1e6 * (time.process_time() - begin) / max(1, counts["datagrams"])
        arguments.json.write_text(json.dumps({**counts, "micros": micros}))


@contextlib.contextmanager
def wan(lab, seed, **shares):
    """Puts the network into a lab of one arm; its counts are in the dictionary at the end."""
    lab.add("wan", "br-out")
    lab.add("wan", "br-lb")
    lab.command("net", "ip", "link", "set", "lb-eth0", "master", "br-lb")
    # A frame that has no checksum yet must not leave its host: the next one takes it as it is.
    for name in ["lb", "client", *(f"server{n}" for n in range(1, lab.count + 1))]:
        lab.command(name, "ethtool", "-K", "eth0", "tx", "off")
    counts, report = {}, lab.path / "wan.json"
    options = [word for name, share in shares.items() for word in (f"--{name}", share)]
    process = lab.popen("wan", [sys.executable, pathlib.Path(__file__).resolve(), "eth0", "eth1", "--seed", seed, "--json", report,
                                *options], "wan.log")
    begin = time.monotonic()
    while "carrying" not in lab.log("wan.log"):
        if process.poll() is not None or time.monotonic() - begin > 10:
            raise OSError(f"the bad network did not start: {lab.log('wan.log')}")
        time.sleep(0.02)
    try:
        yield counts
    finally:
        lab.end(process)
        counts.update(json.loads(report.read_text()))


if __name__ == "__main__":
    main()
