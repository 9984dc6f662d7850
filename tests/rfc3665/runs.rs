//! Whom we play in which flow, and what of it is not a stateless balancer's business.

/// One element of one flow, played.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) section: &'static str,
    /// The element of the flow that we play; `None` where it has none between its two ends.
    pub(crate) us: Option<&'static str>,
    pub(crate) address: &'static str,
    /// Outside: party, the first message for which it is at the address, address.
    pub(crate) left: &'static [(&'static str, u8, &'static str)],
    /// The farm, the first its only server.
    pub(crate) right: &'static [(&'static str, u8, &'static str)],
    /// Messages that the element forwards: got, sent, and what to leave out of the comparison:
    /// `uri` (a location service found another one), or header names.
    pub(crate) forwards: &'static [(u8, u8, &'static str)],
    /// Messages that the element makes itself, and why we do not.
    pub(crate) made: &'static [(u8, &'static str)],
}

impl Run {
    /// Where a party is when it sends message `number`.
    pub(crate) fn address_of(&self, party: &str, number: u8) -> Option<&'static str> {
        let parties = self.left.iter().chain(self.right);
        let mut there = parties.filter(|(of, from, _)| *of == party && *from <= number);
        there.next_back().map(|(_, _, address)| *address)
    }

    pub(crate) fn is_left(&self, party: &str) -> bool {
        self.left.iter().any(|(of, _, _)| *of == party)
    }

    /// Addresses of the farm beside its server.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &'static str> {
        self.right.iter().map(|(_, _, address)| *address)
    }
}

/// RFC 3665 §1: names and addresses.
pub(crate) const HOSTS: &[(&str, &str)] = &[
    ("client.atlanta.example.com", "192.0.2.101"),
    ("client.biloxi.example.com", "192.0.2.201"),
    ("client.chicago.example.com", "192.0.2.100"),
    ("ss1.atlanta.example.com", PROXY_1),
    ("ss2.biloxi.example.com", PROXY_2),
    ("ss3.chicago.example.com", PROXY_3),
    ("alg1.atlanta.example.com", GATEWAY),
];

const PROXY_1: &str = "192.0.2.111";
const PROXY_2: &str = "192.0.2.222";
const PROXY_3: &str = "192.0.2.233";
const GATEWAY: &str = "192.0.2.128";
/// Not in the RFC: where a flow has nobody between its ends.
const BETWEEN: &str = "192.0.2.55";

/// What the RFC prints otherwise than it must be: section, message, printed, meant, why.
pub(crate) const ERRATA: &[(&str, u8, &str, &str, &str)] = &[
    (
        "3.2",
        22,
        "branch=z9hG4bKnashds7\r\n ;received=192.0.2.101",
        "branch=z9hG4bKnashds7\r\n ;received=192.0.2.201",
        "the address of Alice in the Via of Bob",
    ),
    (
        "3.3",
        20,
        "Contact: <sip:bob@client.biloxi.example.com>\r\n",
        "",
        "a Contact that Alice did not send",
    ),
    (
        "3.3",
        21,
        "Contact: <sip:bob@client.biloxi.example.com>\r\n",
        "",
        "as in F20",
    ),
    (
        "3.8",
        4,
        "Record-Route: <sip:ss2.biloxi.example.com;lr>,\r\n <sip:ss1.atlanta.example.com;lr>\r\n\
         Max-Forwards: 68\r\n",
        "Max-Forwards: 68\r\nRecord-Route: <sip:ss2.biloxi.example.com;lr>,\r\n \
         <sip:ss1.atlanta.example.com;lr>\r\n",
        "Record-Route above Max-Forwards, which F2 has the other way round",
    ),
    (
        "3.8",
        11,
        "CANCEL sip:alice@atlanta.example.com",
        "CANCEL sip:bob@biloxi.example.com",
        "the CANCEL of Proxy 1 has another Request-URI than its INVITE",
    ),
    (
        "3.8",
        18,
        "ss2.biloxi.example.com:5060;branch=z9hG4bK721e4.1",
        "ss1.atlanta.example.com:5060;branch=z9hG4bK2d4790.1",
        "the ACK of Proxy 1 has the Via of Proxy 2",
    ),
    (
        "3.8",
        19,
        "CSeq: 1 INVITE\r\n",
        "CSeq: 1 INVITE\r\nContent-Length: 0\r\n",
        "the Content-Length of F17 is lost",
    ),
];

const TRYING: &str = "100: a stateless proxy sends none (RFC 3261 §16.11)";
const CHALLENGE: &str = "407: we do not authenticate, the INVITE is forwarded";
const HOP_ACK: &str = "ACK of a non-2xx, hop by hop: ours is the caller's, forwarded";
const CANCELLED: &str = "200 for CANCEL, hop by hop: ours is the callee's, forwarded";
const TIMER: &str = "timer A: a stateless proxy retransmits nothing";
const GAVE_UP: &str = "480 when timer B fires: a stateless proxy has none";

const ALICE: (&str, u8, &str) = ("Alice", 1, "192.0.2.101");
const BOB: (&str, u8, &str) = ("Bob", 1, "192.0.2.201");
const LEFT_PROXY: (&str, u8, &str) = ("Proxy 1", 1, PROXY_1);
const RIGHT_PROXY: (&str, u8, &str) = ("Proxy 2", 1, PROXY_2);

/// Between Bob and his registrar.
const fn registration(section: &'static str) -> Run {
    Run {
        section,
        us: None,
        address: BETWEEN,
        left: &[BOB],
        right: &[("SIP Server", 1, PROXY_2)],
        forwards: &[],
        made: &[],
    }
}

/// As Proxy 1 between Alice and Proxy 2.
const fn first(
    section: &'static str,
    forwards: &'static [(u8, u8, &'static str)],
    made: &'static [(u8, &'static str)],
) -> Run {
    Run {
        section,
        us: Some("Proxy 1"),
        address: PROXY_1,
        left: &[ALICE],
        right: &[RIGHT_PROXY],
        forwards,
        made,
    }
}

/// As Proxy 2 between Proxy 1 and Bob.
const fn second(
    section: &'static str,
    forwards: &'static [(u8, u8, &'static str)],
    made: &'static [(u8, &'static str)],
) -> Run {
    Run {
        section,
        us: Some("Proxy 2"),
        address: PROXY_2,
        left: &[LEFT_PROXY],
        right: &[BOB],
        forwards,
        made,
    }
}

/// The credentials were for the proxy of the flow, which takes them out.
const SPENT: &str = "proxy-authorization";

pub(crate) const RUNS: &[Run] = &[
    registration("2.1"),
    registration("2.2"),
    registration("2.3"),
    registration("2.4"),
    registration("2.5"),
    Run {
        section: "3.1",
        us: None,
        address: BETWEEN,
        left: &[ALICE],
        right: &[BOB],
        forwards: &[],
        made: &[],
    },
    first(
        "3.2",
        &[
            (4, 5, SPENT),
            (10, 11, ""),
            (13, 14, ""),
            (15, 16, ""),
            (19, 20, ""),
            (21, 22, ""),
        ],
        &[(2, CHALLENGE), (6, TRYING)],
    ),
    second(
        "3.2",
        &[
            (5, 7, "uri"),
            (9, 10, ""),
            (12, 13, ""),
            (16, 17, ""),
            (18, 19, ""),
            (22, 23, ""),
        ],
        &[(8, TRYING)],
    ),
    first(
        "3.3",
        &[
            (4, 6, SPENT),
            (7, 9, ""),
            (11, 13, SPENT),
            (17, 18, ""),
            (19, 20, SPENT),
        ],
        &[(2, CHALLENGE), (5, TRYING), (8, HOP_ACK), (12, TRYING)],
    ),
    second(
        "3.3",
        &[
            (13, 15, "uri proxy-authorization"),
            (16, 17, ""),
            (20, 21, SPENT),
        ],
        &[(7, CHALLENGE), (14, TRYING)],
    ),
    Run {
        section: "3.4",
        us: Some("Proxy 2"),
        address: PROXY_2,
        left: &[ALICE],
        right: &[BOB],
        forwards: &[
            (11, 12, "uri proxy-authorization"),
            (14, 15, ""),
            (16, 17, ""),
            (18, 19, ""),
            (20, 21, ""),
            (22, 23, ""),
        ],
        made: &[(9, CHALLENGE), (13, TRYING)],
    },
    Run {
        section: "3.5",
        us: Some("SIP ALG"),
        address: GATEWAY,
        left: &[ALICE],
        right: &[RIGHT_PROXY, BOB],
        forwards: &[(7, 8, ""), (12, 13, ""), (14, 15, ""), (16, 17, "")],
        made: &[
            (
                2,
                "the gateway rewrites the session description: ours stays",
            ),
            (3, TRYING),
            (
                11,
                "the gateway rewrites the session description: ours stays",
            ),
        ],
    },
    Run {
        section: "3.5",
        us: Some("Proxy 2"),
        address: PROXY_2,
        left: &[("SIP ALG", 1, GATEWAY)],
        right: &[BOB],
        forwards: &[(2, 4, "uri proxy-authorization"), (6, 7, ""), (9, 10, "")],
        made: &[(5, TRYING)],
    },
    Run {
        section: "3.6",
        us: None,
        address: BETWEEN,
        left: &[ALICE],
        right: &[("Redirect Server", 1, "192.0.2.44")],
        forwards: &[],
        made: &[],
    },
    Run {
        section: "3.6",
        us: Some("Proxy 3"),
        address: PROXY_3,
        left: &[ALICE],
        right: &[("Bob", 1, "192.0.2.100")],
        forwards: &[
            (4, 5, "uri"),
            (7, 8, ""),
            (9, 10, ""),
            (11, 12, ""),
            (13, 14, ""),
            (15, 16, ""),
        ],
        made: &[(6, TRYING)],
    },
    Run {
        section: "3.7",
        us: Some("Proxy 2"),
        address: PROXY_2,
        left: &[ALICE],
        right: &[BOB, ("Bob", 9, "192.0.2.100")],
        forwards: &[(1, 2, "uri"), (4, 5, ""), (6, 7, "")],
        made: &[(3, TRYING)],
    },
    first(
        "3.8",
        &[
            (1, 2, SPENT),
            (7, 8, ""),
            (9, 11, "via max-forwards"),
            (17, 19, ""),
        ],
        &[(3, TRYING), (10, CANCELLED), (18, HOP_ACK)],
    ),
    second(
        "3.8",
        &[
            (2, 4, "uri"),
            (6, 7, ""),
            (11, 13, "uri via max-forwards"),
            (15, 17, ""),
        ],
        &[(5, TRYING), (12, CANCELLED), (16, HOP_ACK)],
    ),
    first(
        "3.9",
        &[(1, 2, SPENT), (8, 10, "")],
        &[(3, TRYING), (9, HOP_ACK)],
    ),
    second(
        "3.9",
        &[(2, 4, "uri"), (6, 8, "")],
        &[(5, TRYING), (7, HOP_ACK)],
    ),
    first(
        "3.10",
        &[(1, 2, SPENT), (12, 14, "")],
        &[(3, TRYING), (13, HOP_ACK)],
    ),
    second(
        "3.10",
        &[(2, 4, "uri")],
        &[
            (5, TRYING),
            (6, TIMER),
            (7, TIMER),
            (8, TIMER),
            (9, TIMER),
            (10, TIMER),
            (11, TIMER),
            (12, GAVE_UP),
        ],
    ),
    first(
        "3.11",
        &[(1, 2, SPENT), (7, 8, ""), (11, 13, "")],
        &[(3, TRYING), (12, HOP_ACK)],
    ),
    second(
        "3.11",
        &[(2, 4, "uri"), (6, 7, ""), (9, 11, "")],
        &[(5, TRYING), (10, HOP_ACK)],
    ),
];
