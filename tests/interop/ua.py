"""User agents in Python: exact bytes, one step at a time, with the route sets of RFC 3261 §12.

A run says who sends what and who must get it. Nothing is retransmitted: the lab loses nothing, and
what a peer gets twice or not at all is a fault.
"""

import itertools
import re
import select
import time

from lab import Failure, check

_numbers = itertools.count(1)
SDP = b"v=0\r\no=- 1 1 IN IP4 198.18.0.100\r\ns=-\r\nc=IN IP4 198.18.0.100\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n"


def unique(word):
    return f"{word}{next(_numbers)}{time.monotonic_ns() % 10**9}"


def values(text):
    """Values of a comma list; commas in quotes and angle brackets do not count."""
    found = re.findall(r'(?:"(?:[^"\\]|\\.)*"|<[^>]*>|[^,"<])+', text)
    return [value.strip() for value in found if value.strip()]


def host_port(text):
    """(host, port or None) of `host[:port]`."""
    found = re.match(r"(\[[^\]]*\]|[^:;>\s]+)(?::(\d+))?", text)
    return found[1].strip("[]"), int(found[2]) if found[2] else None


def address(uri):
    """(host, port) that a URI or name-addr is sent to."""
    host, port = host_port(re.search(r"sips?:(?:[^@>]*@)?([^;>?]+)", uri)[1])
    return host, port or 5060


class Message:
    """A received message and where it came from."""

    def __init__(self, data, peer=None):
        self.data, self.peer = data, peer[:2] if peer else None
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = re.sub(r"\r\n[ \t]+", " ", head.decode()).split("\r\n")
        self.start = lines[0]
        self.rows = [(name.strip().lower(), value.strip())
                     for name, _, value in (line.partition(":") for line in lines[1:])]
        words = self.start.split(" ", 2)
        self.status = int(words[1]) if words[0] == "SIP/2.0" else None
        self.uri = None if self.status else words[1]
        self.method = self.one("cseq").split()[1] if self.status else words[0]

    def all(self, name):
        return [value for row, text in self.rows if row == name for value in values(text)]

    def one(self, name):
        found = [text for row, text in self.rows if row == name]
        check(found, f"no {name} in {self.start}")
        return found[0]

    def tag(self, name):
        found = re.search(r";\s*tag=([^;\s]+)", self.one(name))
        return found[1] if found else None

    @property
    def cseq(self):
        return int(self.one("cseq").split()[0])

    @property
    def branch(self):
        return re.search(r"branch=([^;\s,]+)", self.all("via")[0])[1]

    def __str__(self):
        return f"{self.start} (CSeq {self.one('cseq')})"


class Ua:
    """A user agent on one socket."""

    def __init__(self, lab, namespace, ip, port=5060, proxy=None):
        self.lab, self.namespace, self.ip, self.port, self.proxy = lab, namespace, ip, port, proxy
        self.socket = lab.socket(namespace, ip, port)
        self.host = f"{lab.bracket(ip)}:{port}"
        self.contact = f"<sip:{namespace}@{self.host}>"

    def close(self):
        self.socket.close()

    def send(self, data, to):
        self.socket.sendto(data if isinstance(data, bytes) else data.encode(), to)

    def dialog(self, uri, **options):
        """A dialog that this user agent begins."""
        return Dialog(self, uri, **options)

    def respond(self, request, code, reason="x", tag=None, extra=(), body=b""):
        """Answers a request as RFC 3261 §8.2.6 and §18.2.2, RFC 3581 say."""
        vias = request.all("via")
        top, host = vias[0], host_port(re.search(r"\s(\S+)", vias[0])[1])
        asked = re.search(r";\s*rport(?![\w=])", top)
        port = request.peer[1] if asked else host[1] or 5060
        if asked:
            top = top.replace(asked[0], f";rport={port}")
        if asked or host[0] != request.peer[0]:
            top += f";received={request.peer[0]}"
        to = request.one("to")
        if code != 100 and not request.tag("to"):
            to += f";tag={tag or self.namespace}"
        rows = [f"SIP/2.0 {code} {reason}", f"Via: {top}", *(f"Via: {via}" for via in vias[1:]),
                *(f"Record-Route: {value}" for value in request.all("record-route")),
                f"From: {request.one('from')}", f"To: {to}", f"Call-ID: {request.one('call-id')}",
                f"CSeq: {request.one('cseq')}", *extra]
        if code < 300 and request.method in ("INVITE", "SUBSCRIBE", "UPDATE", "REFER", "NOTIFY"):
            rows.append(f"Contact: {self.contact}")
        rows += [f"Content-Length: {len(body)}", "", ""]
        self.send("\r\n".join(rows).encode() + body, (request.peer[0], port))


class Dialog:
    """One side of a dialog, or a request outside of any."""

    def __init__(self, ua, uri, call_id=None, routes=(), local=None, remote=None):
        self.ua, self.target, self.routes = ua, uri, list(routes)
        self.call_id = call_id or unique("call")
        self.local_tag, self.remote_tag, self.cseq = unique("t"), None, 0
        self.local = local or f"<sip:{ua.namespace}@{ua.host}>"
        self.remote = remote or f"<{uri}>"
        self.invite = None

    @classmethod
    def of(cls, ua, request, tag=None):
        """The callee's side, RFC 3261 §12.1.1."""
        made = cls(ua, request.all("contact")[0].strip("<>"), request.one("call-id"))
        made.routes = request.all("record-route")
        made.local_tag, made.remote_tag = tag or ua.namespace, request.tag("from")
        made.local = re.sub(r";\s*tag=.*", "", request.one("to"))
        made.remote = re.sub(r";\s*tag=.*", "", request.one("from"))
        return made

    def learn(self, response):
        """The caller's side takes route set, target and tag from a response, §12.1.2."""
        if self.remote_tag is None:
            self.routes = response.all("record-route")[::-1]
        self.remote_tag = response.tag("to")
        contact = response.all("contact")
        if contact:
            self.target = re.search(r"<([^>]*)>", contact[0])[1]

    def send(self, method, branch=None, cseq=None, extra=(), body=b"", sender=None):
        """Sends a request of this dialog; returns its branch."""
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        branch = branch or "z9hG4bK" + unique(method.lower())
        sender = sender or self.ua
        rows = [f"{method} {self.target} SIP/2.0", f"Via: SIP/2.0/UDP {self.ua.host};branch={branch};rport",
                *(f"Route: {route}" for route in self.routes), "Max-Forwards: 70",
                f"From: {self.local};tag={self.local_tag}",
                f"To: {self.remote}" + (f";tag={self.remote_tag}" if self.remote_tag and method != "CANCEL" else ""),
                f"Call-ID: {self.call_id}", f"CSeq: {cseq} {method}"]
        if method not in ("ACK", "BYE", "CANCEL", "MESSAGE", "PUBLISH", "PRACK"):
            rows.append(f"Contact: {self.ua.contact}")
        rows += [*extra, f"Content-Length: {len(body)}", "", ""]
        if method == "INVITE":
            self.invite = (branch, cseq, self.remote_tag)
        to = self.ua.proxy or address(self.routes[0] if self.routes else self.target)
        sender.send("\r\n".join(rows).encode() + body, to)
        return branch

    def ack(self, response, sender=None):
        """ACK of the last INVITE: of its transaction if it was refused, else one of its own."""
        branch, cseq, before = self.invite
        if response.status < 300:
            self.send("ACK", cseq=cseq, sender=sender)
            return
        self.remote_tag = response.tag("to")
        self.send("ACK", branch, cseq, sender=sender)
        self.remote_tag = before

    def cancel(self, sender=None):
        branch, cseq, _ = self.invite
        self.send("CANCEL", branch, cseq, sender=sender)


def expect(uas, what, seconds=3.0):
    """The next message at any of these: (who, message). It must be `what`, a method or a status."""
    uas = [uas] if isinstance(uas, Ua) else list(uas)
    got = None
    # A proxy behind viaduct may say 100 first.
    while got is None or got.status == 100 != what:
        ready, _, _ = select.select([ua.socket for ua in uas], [], [], seconds)
        if not ready:
            raise Failure(f"no {what} at {', '.join(ua.namespace for ua in uas)} within {seconds} s")
        ua = next(ua for ua in uas if ua.socket in ready)
        got = Message(*ua.socket.recvfrom(65535))
    check(what in (got.status, None if got.status else got.method), f"{what} expected at {ua.namespace}, got {got}")
    return ua, got


def nothing(uas, seconds=0.2):
    """None of these gets anything."""
    ready, _, _ = select.select([ua.socket for ua in uas], [], [], seconds)
    for ua in uas:
        if ua.socket in ready:
            raise Failure(f"unexpected at {ua.namespace}: {Message(*ua.socket.recvfrom(65535))}")


def establish(caller, callees, uri, routes=(), body=SDP, **options):
    """A call from INVITE to ACK: (caller's side, callee's side)."""
    out = caller.dialog(uri, routes=routes, **options)
    out.send("INVITE", body=body)
    at, invite = expect(callees, "INVITE")
    check(invite.body == body, "the body of the INVITE changed")
    return answer(out, at, invite)


def answer(out, at, invite):
    """The rest of a call whose INVITE has arrived."""
    back = Dialog.of(at, invite)
    for code in (180, 200):
        at.respond(invite, code, body=SDP if code == 200 else b"")
        _, response = expect(out.ua, code)
        out.learn(response)
    out.ack(response)
    _, ack = expect(at, "ACK")
    check(ack.one("call-id") == invite.one("call-id"), "the ACK of another call")
    return out, back


def transact(one, other, method, code=200, **options):
    """A request in a dialog from `one` to `other` and its answer; returns what arrived."""
    one.send(method, **options)
    _, got = expect(other.ua, method)
    check(got.one("call-id") == one.call_id, f"{method} of another dialog")
    other.ua.respond(got, code)
    _, response = expect(one.ua, code)
    check(len(response.all("via")) == 1, f"answer to {method} with {len(response.all('via'))} Vias")
    return got
