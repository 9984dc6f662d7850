"""tshark as a judge of everything that a viaduct sends, from the other end of its links.

`with oracle(lab):` captures on the peers' end of every interface of every viaduct (a capture on the
interface itself would not see what AF_XDP sends and receives) and at the end holds each frame a
viaduct sent against what RFC 3261 §16 leaves it to do:

* IP and UDP checksums are right, nothing is malformed, no expert error;
* a forwarded request has one Via more than a request that came in, one hop less, the same body, and
  is forwarded once; a response likewise with one Via less;
* what has no twin is an answer of our own, to a request that came in, and not longer than it;
* INVITE, CANCEL and the ACK of a refusal have one branch and one destination.

Where INVITE has a transaction, its messages are held against what `oracle_stateful.py` says instead.
"""

import collections
import contextlib
import hashlib
import re
import subprocess
import time

import oracle_stateful
from lab import check

FIELDS = ["frame.number", "frame.interface_name", "eth.src", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "udp.dstport", "ip.checksum.status",
          "udp.checksum.status", "_ws.malformed", "_ws.expert.severity", "_ws.expert.message", "sip.Request-Line",
          "sip.Status-Line", "sip.Via", "sip.Call-ID", "sip.CSeq", "sip.Max-Forwards",
          "udp.length", "udp.payload", "frame.time_epoch", "sip.to.tag"]
CHECKSUM_BAD = "0"
EXPERT_ERROR = 0x800000
Frame = collections.namedtuple("Frame", "number port source peer target checksums malformed experts start vias branches call "
                                        "cseq hops length body time tag payload")


class Judge:
    """What an oracle found out."""

    def __init__(self):
        self.seen = self.requests = self.responses = self.own = self.transactions = self.attempts = 0
        # Address of a peer: [bytes of UDP to viaduct, bytes from viaduct].
        self.traffic = collections.defaultdict(lambda: [0, 0])

    def __str__(self):
        return (f"tshark: {self.seen} messages sent by viaduct, {self.requests} requests and {self.responses} "
                f"responses with their twins, {self.own} of its own, {self.transactions} INVITE transactions in {self.attempts} attempts")


@contextlib.contextmanager
def oracle(lab, messages=True):
    """Judges what leaves during the block; `messages=False` for runs whose input is broken on
    purpose: checksums only."""
    ports = [f"{name}-eth{arm}" for name, arms in lab.balancers.items() for arm in range(arms)]
    for name, arms in lab.balancers.items():
        for arm in range(arms):
            # What the kernel path sends over veth has no checksum yet unless the sender computes it.
            lab.command(name, "ethtool", "-K", f"eth{arm}", "tx", "off")
    log = f"oracle{time.monotonic_ns()}"
    command = ["dumpcap", "-q", "-B", "64", "-w", lab.path / f"{log}.pcapng"]
    for port in ports:
        command += ["-i", port, "-f", "udp or (ip[6:2] & 0x3fff != 0) or ip6[6] == 44"]
    process = lab.popen("net", command, f"{log}.log")
    begin = time.monotonic()
    while "File:" not in lab.log(f"{log}.log"):
        check(process.poll() is None and time.monotonic() - begin < 10, f"dumpcap did not start: {lab.log(f'{log}.log')}")
        time.sleep(0.02)
    judge = Judge()
    yield judge
    time.sleep(0.3)  # what is on its way, and dumpcap's own buffer
    lab.end(process)
    text = lab.log(f"{log}.log")
    lost = [int(line.split(":", 1)[1].split("/")[1].split()[0]) for line in text.splitlines() if "received/dropped" in line]
    check(len(lost) == len(ports) and not any(lost), f"the capture is not whole:\n{text}")
    macs = {f"{name}-eth{arm}": lab.mac(name, f"eth{arm}")
            for name, arms in lab.balancers.items() for arm in range(arms)}
    frames = list(read(lab.path / f"{log}.pcapng"))
    for name in lab.balancers:
        own = {port: mac for port, mac in macs.items() if port.rsplit("-", 1)[0] == name}
        hold([frame for frame in frames if frame.port in own], own, judge, messages)


def read(path):
    """The frames of a capture, as tshark dissects them."""
    command = ["tshark", "-n", "-r", path, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
               "-d", "udp.port==5060,sip", "-T", "fields", "-E", "separator=/t", "-E", "aggregator=\x1e", "-E", "occurrence=a"]
    for field in FIELDS:
        command += ["-e", field]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    check(done.returncode == 0, f"tshark: {done.stderr}")
    for line in done.stdout.split("\n"):
        if not line:
            continue
        row = dict(zip(FIELDS, line.split("\t")))
        many = {field: text.split("\x1e") if text else [] for field, text in row.items()}
        payload = bytes.fromhex(row["udp.payload"].replace(":", "").split("\x1e")[0])
        body = payload.partition(b"\r\n\r\n")[2]
        yield Frame(
            int(row["frame.number"]), row["frame.interface_name"], row["eth.src"], row["ip.src"] or row["ipv6.src"],
            (row["ip.dst"] or row["ipv6.dst"], row["udp.dstport"]),
            many["ip.checksum.status"] + many["udp.checksum.status"], bool(row["_ws.malformed"]),
            [text for severity, text in zip(many["_ws.expert.severity"], many["_ws.expert.message"])
             if int(severity) >= EXPERT_ERROR],
            row["sip.Request-Line"] or row["sip.Status-Line"], many["sip.Via"], branches(many["sip.Via"]),
            row["sip.Call-ID"].split("\x1e")[0], row["sip.CSeq"].split("\x1e")[0], row["sip.Max-Forwards"].split("\x1e")[0],
            int(row["udp.length"].split("\x1e")[0] or 0), hashlib.sha256(body).digest(),
            float(row["frame.time_epoch"]), row["sip.to.tag"].split("\x1e")[0], hashlib.sha256(payload).digest())


def branches(vias):
    """Branches of all Vias; tshark's own field misses those of folded rows."""
    return re.findall(r"(?i);(?:\s|\\[rnt])*branch\s*=\s*([^;,\s\\]+)", ",".join(vias))


def hold(frames, own, judge, messages):
    """Judges the frames of one viaduct, whose interfaces have the addresses `own`."""
    sent = [frame for frame in frames if frame.source == own[frame.port] and frame.length]
    came = [frame for frame in frames if frame.source != own[frame.port] and frame.length]
    judge.seen += len(sent)
    for frame in came:
        judge.traffic[frame.peer][0] += frame.length
    for frame in sent:
        judge.traffic[frame.target[0]][1] += frame.length
    for frame in sent:
        check(CHECKSUM_BAD not in frame.checksums, f"frame {frame.number}: wrong checksum: {frame}")
    if not messages:
        return
    for frame in sent:
        check(frame.start, f"frame {frame.number} is not SIP: {frame}")
        check(not frame.malformed and not frame.experts, f"frame {frame.number}: {frame.experts or 'malformed'}: {frame}")
        check(len(frame.branches) >= len(frame.vias), f"frame {frame.number}: a Via without a branch: {frame.vias}")
    transactions, sent, came = oracle_stateful.split(sent, came)
    oracle_stateful.hold(transactions, judge)
    requests = collections.defaultdict(collections.deque)
    responses = collections.Counter()
    for frame in came:
        if frame.start.startswith("SIP/2.0"):
            responses[status(frame), key(frame, 1)] += 1
        elif frame.start:
            requests[key(frame, 0)].append(frame)
    asked = {known[:-1]: list(twins) for known, twins in requests.items()}
    transactions = {}
    for frame in sent:
        if not frame.start.startswith("SIP/2.0"):
            twins = requests[key(frame, 1)]
            check(twins, f"frame {frame.number}: no request with one Via less came in, or it was forwarded twice: {frame}")
            twin = twins.popleft()
            check(int(twin.hops or 71) == int(frame.hops) + 1, f"frame {frame.number}: Max-Forwards {twin.hops} -> {frame.hops}")
            judge.requests += 1
            if frame.cseq.split()[1] in ("INVITE", "CANCEL", "ACK"):
                name = (frame.call, frame.cseq.split()[0], tuple(frame.branches[1:]))
                now = (frame.branches[0], frame.target)
                check(transactions.setdefault(name, now) == now,
                      f"frame {frame.number}: {frame.cseq} has {now}, its transaction {transactions[name]}")
        elif responses[status(frame), key(frame, 0)]:
            responses[status(frame), key(frame, 0)] -= 1
            judge.responses += 1
        else:
            request = (asked.get(key(frame, 0)[:-1]) or [None]).pop()
            check(request, f"frame {frame.number}: a response that nobody sent or asked for, or forwarded twice: {frame}")
            check(frame.length <= request.length, f"frame {frame.number}: an answer longer than its request: {frame}")
            judge.own += 1


def key(frame, skip):
    """What a message and its twin share: `skip` Vias of it are not the other's."""
    return frame.call, frame.cseq, tuple(frame.branches[skip:]), frame.body


def status(frame):
    return frame.start.split(" ")[1]

