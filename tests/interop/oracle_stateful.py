"""What tshark's judge holds against INVITE transactions, which are viaduct's own on either side.

A message belongs to such a transaction if viaduct's branch in it says so (`z9hG4bKt`). Then:

* one INVITE per branch, byte for byte, to one server, seven times at most and not after an answer;
  another branch goes to another server, and not once somebody has rung, unless that ended;
* an ACK or CANCEL on it is viaduct's own: one Via, the INVITE's server; the ACK has the tag of a
  refusal that came, each of which is acknowledged; a CANCEL goes out only after a provisional answer;
* the client gets a first answer within 200 ms (RFC 3261 §16.2), one final answer of one kind, 2xx
  as often as they came and nothing refused after one.
"""

import collections

from lab import check

STATEFUL = "z9hG4bKt"
COPIES_MAX = 11
# A frame on its way past the other's decision; a transaction's timers are far above.
SLACK = 0.05
FIRST_ANSWER = 0.2


def is_ours(frame):
    return bool(frame.branches) and frame.branches[0].startswith(STATEFUL)


def method(frame):
    return frame.cseq.split()[1]


def is_response(frame):
    return frame.start.startswith("SIP/2.0")


def code(frame):
    return int(frame.start.split(" ")[1])


class Attempt:
    """One branch: what went out on it and what came back."""

    def __init__(self):
        self.invites, self.cancels, self.acks, self.answers = [], [], [], []

    def first(self, low, high=1000):
        """When the first answer of these codes came."""
        return next((frame.time for frame in self.answers if low <= code(frame) < high), None)


def split(sent, came):
    """Takes what belongs to INVITE transactions out of what was sent and what came:
    (transactions by (Call-ID, CSeq number, lower Vias), rest of the sent, rest of what came)."""
    transactions = collections.defaultdict(lambda: collections.defaultdict(Attempt))
    by_branch, probes = {}, set()
    for frame in sent:
        if is_ours(frame) and not is_response(frame):
            if method(frame) == "INVITE":
                name = (frame.call, frame.cseq.split()[0], tuple(frame.branches[1:]))
                transactions[name][frame.branches[0]].invites.append(frame)
                by_branch[frame.branches[0]] = transactions[name][frame.branches[0]]
            elif method(frame) == "OPTIONS" and len(frame.branches) == 1:
                probes.add(frame.branches[0])
    rest_sent, rest_came, upstream = [], [], collections.defaultdict(lambda: ([], []))
    for frame in sent:
        if is_response(frame):
            name = (frame.call, frame.cseq.split()[0], tuple(frame.branches))
            if name in transactions and method(frame) in ("INVITE", "CANCEL"):
                upstream[name][1].append(frame)
            else:
                rest_sent.append(frame)
        elif not is_ours(frame) or (len(frame.branches) > 1 and method(frame) != "INVITE"):
            rest_sent.append(frame)  # a CANCEL whose transaction is lost goes on as it came
        elif method(frame) in ("ACK", "CANCEL"):
            check(frame.branches[0] in by_branch, f"frame {frame.number}: {frame.cseq} on a branch without INVITE: {frame}")
            attempt = by_branch[frame.branches[0]]
            (attempt.acks if method(frame) == "ACK" else attempt.cancels).append(frame)
        else:
            check(method(frame) == "INVITE" or frame.branches[0] in probes, f"frame {frame.number}: {frame.cseq} has a transaction")
    for frame in came:
        if is_response(frame):
            attempt = by_branch.get(frame.branches[0] if frame.branches else None)
            if frame.branches and frame.branches[0] in probes:
                continue
            if attempt is None or method(frame) not in ("INVITE", "CANCEL"):
                rest_came.append(frame)
            elif method(frame) == "INVITE":
                attempt.answers.append(frame)
            continue
        name = (frame.call, frame.cseq.split()[0] if frame.cseq else "", tuple(frame.branches))
        if name in transactions and method(frame) in ("INVITE", "CANCEL", "ACK"):
            upstream[name][0].append(frame)
        else:
            rest_came.append(frame)
    return {name: (attempts, *upstream[name]) for name, attempts in transactions.items()}, rest_sent, rest_came


def hold(transactions, judge):
    """Holds every transaction against the rules above."""
    for name, (attempts, asked, told) in transactions.items():
        where = f"call {name[0]} CSeq {name[1]}"
        invites = [frame for frame in asked if method(frame) == "INVITE"]
        cancels = [frame for frame in asked if method(frame) == "CANCEL"]
        check(invites, f"{where}: an INVITE that nobody sent")
        for attempt in attempts.values():
            one_attempt(where, attempt, invites[0], cancels)
            judge.requests += len(attempt.invites)
            judge.own += len(attempt.acks) + len(attempt.cancels)
        hunting(where, sorted(attempts.values(), key=lambda attempt: attempt.invites[0].time))
        answers(where, list(attempts.values()), invites, cancels, told, judge)
    judge.transactions += len(transactions)
    judge.attempts += sum(len(attempts) for attempts, _, _ in transactions.values())


def one_attempt(where, attempt, asked, cancels):
    """INVITE, CANCEL and ACK of one branch."""
    first = attempt.invites[0]
    check(len({(frame.target, frame.payload) for frame in attempt.invites}) == 1, f"{where}: two INVITEs of one branch differ")
    check(len(attempt.invites) <= 7, f"{where}: {len(attempt.invites)} INVITEs on one branch")
    check(first.body == asked.body and int(asked.hops or 71) == int(first.hops) + 1,
          f"{where}: not what came in: {asked} -> {first}")
    answered = attempt.first(100)
    for frame in attempt.invites:
        check(answered is None or frame.time < answered + SLACK, f"frame {frame.number}: {where}: INVITE repeated after an answer")
    finals = [frame for frame in attempt.answers if code(frame) >= 300]
    for frame in attempt.acks + attempt.cancels:
        check(frame.target == first.target, f"frame {frame.number}: {where}: {frame.cseq} to {frame.target}, its INVITE to {first.target}")
    for frame in attempt.acks:
        check(any(final.tag == frame.tag and final.time <= frame.time for final in finals),
              f"frame {frame.number}: {where}: an ACK without a refusal, or with another tag")
    check(len(attempt.acks) <= len(finals), f"{where}: {len(attempt.acks)} ACKs of {len(finals)} refusals")
    check(attempt.acks or not finals, f"{where}: a refusal that was not acknowledged")
    for frame in attempt.cancels:
        check(answered is not None and answered <= frame.time, f"frame {frame.number}: {where}: CANCEL before a provisional answer")
    check(len(attempt.cancels) <= COPIES_MAX, f"{where}: {len(attempt.cancels)} CANCELs")


def hunting(where, attempts):
    """The order of branches: each to another server, none once somebody rings."""
    targets = [attempt.invites[0].target for attempt in attempts]
    check(len(set(targets)) == len(targets), f"{where}: a server was tried twice: {targets}")
    for before, after in zip(attempts, attempts[1:]):
        began = after.invites[0].time
        rang, ended = before.first(101, 300), before.first(300)
        check(ended is not None and ended <= began or rang is None or rang > began - SLACK,
              f"{where}: another server was tried while {before.invites[0].target} rang")


def answers(where, attempts, invites, cancels, told, judge):
    """What the client got."""
    came = [frame for attempt in attempts for frame in attempt.answers]
    to_invite = [frame for frame in told if method(frame) == "INVITE"]
    to_cancel = [frame for frame in told if method(frame) == "CANCEL"]
    check(len(to_cancel) <= len(cancels), f"{where}: {len(to_cancel)} answers to {len(cancels)} CANCELs")
    check(all(code(frame) == 200 for frame in to_cancel), f"{where}: a CANCEL refused")
    check(to_invite and to_invite[0].time - invites[0].time < FIRST_ANSWER, f"{where}: no answer within {FIRST_ANSWER} s")
    good, refused = [], []
    for frame in to_invite:
        number, twins = code(frame), [other for other in came if code(other) == code(frame) and other.tag == frame.tag
                                      and other.body == frame.body and other.time <= frame.time]
        if number == 100:
            judge.own += 1
        elif number < 300:
            check(twins, f"frame {frame.number}: {where}: a {number} that no server sent")
            # RFC 3261 §17.2.1: the last provisional answer again for an INVITE that came again.
            copies = sum(1 for other in to_invite if (code(other), other.tag, other.body) == (number, frame.tag, frame.body))
            most = len(twins) + (len(invites) - 1 if number < 200 else 0)
            check(copies <= sum(1 for other in came if code(other) == number) + len(invites) - 1 or copies <= most,
                  f"frame {frame.number}: {where}: {copies} times {number}")
            judge.responses += 1
            if number >= 200:
                good.append(frame)
        else:
            if twins:
                judge.responses += 1
            else:
                check(frame.length <= invites[0].length, f"frame {frame.number}: {where}: an answer longer than its request")
                judge.own += 1
            check(not good, f"frame {frame.number}: {where}: {number} after a 2xx")
            refused.append(frame)
    check(len({(code(frame), frame.tag) for frame in refused}) <= 1, f"{where}: two refusals: {[code(frame) for frame in refused]}")
    check(len(refused) <= COPIES_MAX + len(invites), f"{where}: {len(refused)} times {code(refused[0]) if refused else 0}")
    # RFC 3261 §16.7 step 5 and RFC 6026: every 2xx is forwarded.
    for tag in {frame.tag for frame in came if 200 <= code(frame) < 300}:
        had = sum(1 for frame in came if frame.tag == tag and 200 <= code(frame) < 300)
        gave = sum(1 for frame in good if frame.tag == tag)
        check(gave == had, f"{where}: {had} times 2xx of {tag} came, {gave} forwarded")
