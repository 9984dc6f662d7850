//! What peers do to the Route that we gave them as Record-Route: RFC 3261 §12.2.1.1, §16.4, §16.12,
//! §19.1.4, §20.34.

use crate::call::{Call, ENDS, End, SHAPES, Shape, WAYS, Way, embedded, expanded, respelled};
use crate::fixture::*;

/// Route values in, Route rows out.
type Habit = fn(&[String]) -> String;

fn each(values: &[String], change: impl Fn(&str) -> String) -> String {
    values
        .iter()
        .map(|value| format!("Route: {}\r\n", change(value)))
        .collect()
}

/// `<sip:user@host;lr>` into its URI without parameters.
fn bare(value: &str) -> &str {
    let uri = value.trim_start_matches('<').trim_end_matches('>');
    uri.split(';').next().unwrap()
}

fn user_and_host(value: &str) -> (&str, &str) {
    let uri = bare(value).strip_prefix("sip:").unwrap();
    uri.split_once('@').unwrap()
}

const HABITS: &[(&str, Habit)] = &[
    ("as they are", |all| each(all, str::to_owned)),
    ("joined", |all| format!("Route: {}\r\n", all.join(", "))),
    ("joined without blanks", |all| {
        format!("Route:{}\r\n", all.join(","))
    }),
    ("joined and folded", |all| {
        format!("Route:\r\n {}\r\n", all.join("\r\n\t,\r\n "))
    }),
    ("rows apart", |all| {
        all.iter()
            .enumerate()
            .map(|(n, value)| format!("Route: {value}\r\nX-Between: {n}, {n}\r\n"))
            .collect()
    }),
    ("another case of the name", |all| {
        each(all, str::to_owned).replace("Route:", "ROUTE :")
    }),
    ("tabs", |all| {
        each(all, |value| format!("\t{value}\t ;\tx\t=\t1")).replace("Route: ", "Route:\t")
    }),
    ("lr stripped", |all| {
        each(all, |value| value.replace(";lr", ""))
    }),
    ("lr=on", |all| {
        each(all, |value| value.replace(";lr", ";lr=on"))
    }),
    ("lr=true", |all| {
        each(all, |value| value.replace(";lr", ";lr=true"))
    }),
    ("LR", |all| each(all, |value| value.replace(";lr", ";LR"))),
    ("more URI parameters", |all| {
        each(all, |value| {
            value.replace(";lr", ";transport=udp;lr;ftag=a1;did=4c.1b")
        })
    }),
    ("header parameters", |all| {
        each(all, |value| format!("{value};p=1;q=\"a,<b>;c\" ; r"))
    }),
    ("display names", |all| {
        each(all, |value| format!("\"Edge, \\\"<main>\\\", 1\" {value}"))
    }),
    ("a display name of tokens", |all| {
        each(all, |value| format!("Edge main {value}"))
    }),
    ("no brackets", |all| {
        each(all, |value| bare(value).to_owned())
    }),
    ("no brackets, lr behind", |all| {
        each(all, |value| format!("{};lr", bare(value)))
    }),
    ("blanks in the brackets", |all| {
        each(all, |value| format!("< {} >", &value[1..value.len() - 1]))
    }),
    ("user in upper case", |all| {
        each(all, |value| {
            let (user, host) = user_and_host(value);
            format!("<sip:{}@{host};lr>", user.to_uppercase())
        })
    }),
    ("all in upper case", |all| each(all, str::to_uppercase)),
    ("a password", |all| {
        each(all, |value| {
            let (user, host) = user_and_host(value);
            format!("<sip:{user}:pw@{host};lr>")
        })
    }),
    ("default port dropped", |all| {
        each(all, |value| value.replace(":5060", ""))
    }),
    ("port with a zero in front", |all| {
        each(all, |value| value.replace(":5060", ":05060"))
    }),
    ("IPv6 expanded", |all| {
        each(all, |value| respelled(value, expanded))
    }),
    ("IPv6 with an embedded IPv4", |all| {
        each(all, |value| respelled(value, embedded))
    }),
    ("IPv4 as IPv6", |all| {
        each(all, |value| {
            let (user, host) = user_and_host(value);
            match host.starts_with('[') {
                true => value.to_owned(),
                false => format!(
                    "<sip:{user}@[::FFFF:{}]:5060;lr>",
                    host.split(':').next().unwrap()
                ),
            }
        })
    }),
];

fn calls(what: &str, check: impl Fn(&mut Lab, &Shape, Way, End, &Call)) {
    for shape in &SHAPES {
        for way in WAYS {
            for end in ENDS {
                let mut lab = shape.lab();
                let call = shape.call(
                    &mut lab,
                    way,
                    &format!("{what} {}", shape.name).replace(' ', "-"),
                );
                // Neither pins nor the table may be what brings it there.
                lab.restart();
                check(&mut lab, shape, way, end, &call);
            }
        }
    }
}

/// RFC 3261 §16.4, §16.12: removed and followed, in whatever spelling it comes back.
#[test]
fn a13_our_route_is_known_in_any_spelling() {
    for (habit, change) in HABITS {
        calls("spelling", |lab, shape, way, end, call| {
            for method in ["ACK", "INVITE", "BYE"] {
                let what = format!("{habit}, {}, {way:?}, {end:?}, {method}", shape.name);
                let rows = change(&call.routes(end));
                let bytes = call.request(end, method, &call.target(end), &rows);
                call.reaches(lab, end, &bytes, &what);
            }
        });
    }
}

/// The Contact of a server may be a name that only the farm knows, or our own address (a server
/// behind NAT, a topology hiding one): the token brings the request there.
#[test]
fn a13_the_token_survives_every_spelling() {
    for (habit, change) in HABITS {
        calls("token", |lab, shape, way, end, call| {
            // The end that talks to the server.
            if (way == Way::In) != (end == End::Caller) {
                return;
            }
            for uri in [
                "sip:pbx.internal.example",
                &format!("sip:x@{}", shape.outside),
            ] {
                let what = format!("{habit}, {}, {way:?}, {uri}", shape.name);
                let bytes = call.request(end, "BYE", uri, &change(&call.routes(end)));
                call.reaches(lab, end, &bytes, &what);
            }
        });
    }
}

/// RFC 3261 §16.4: a peer that takes us for a strict router (it lost our `lr`, or never knew what
/// it means) writes our URI as Request-URI and its target as the last Route.
#[test]
fn a11_a_peer_that_routes_strictly_is_understood() {
    for (spelling, spell) in [
        ("as it is", (|uri| uri.to_owned()) as fn(&str) -> String),
        ("upper case", |uri| uri.to_uppercase()),
        ("lr kept", |uri| format!("{uri};lr")),
        ("lr=on", |uri| format!("{uri};lr=on;transport=UDP")),
        ("port dropped", |uri| uri.replace(":5060", "")),
        ("IPv6 expanded", |uri| respelled(uri, expanded)),
    ] {
        calls("strict", |lab, shape, way, end, call| {
            let what = format!("{spelling}, {}, {way:?}, {end:?}", shape.name);
            let mut routes = call.routes(end);
            let uri = spell(bare(&routes.remove(0)));
            routes.push(format!("<{}>", call.target(end)));
            for joined in [true, false] {
                let rows = match joined {
                    true => format!("Route: {}\r\n", routes.join(",")),
                    false => each(&routes, str::to_owned),
                };
                let bytes = call.request(end, "BYE", &uri, &rows);
                let sent = call.reaches(lab, end, &bytes, &what);
                assert_eq!(
                    start_line(&sent.bytes),
                    format!("BYE {} SIP/2.0", call.target(end)),
                    "{what}"
                );
            }
        });
    }
}

/// A peer that loses the user part loses the token: the Request-URI still says where.
#[test]
fn a13_without_the_user_part_the_request_uri_counts() {
    calls("no user", |lab, shape, way, end, call| {
        let what = format!("{}, {way:?}, {end:?}", shape.name);
        let rows = each(&call.routes(end), |value| {
            format!("<sip:{};lr>", user_and_host(value).1)
        });
        let bytes = call.request(end, "BYE", &call.target(end), &rows);
        call.reaches(lab, end, &bytes, &what);
    });
}

/// A server that is a proxy puts its own value above or below ours, in a row of its own or in ours,
/// and answers to it; with and without `lr`.
#[test]
fn a13_a_servers_own_record_route_stands_above_or_below_ours() {
    for shape in &SHAPES {
        for (n, own_lr) in [";lr", ";lr=on", ";transport=udp;lr;x=%22a,b"]
            .iter()
            .enumerate()
        {
            let mut lab = shape.lab();
            let call_id = format!("above-{n}-{}", shape.name);
            let call = shape.call(&mut lab, Way::In, &call_id);
            lab.restart();
            let server = format!("<sip:edge@{}{own_lr}>", call.callee);
            // The callee is behind that server, and not in the farm.
            let uri = "sip:callee@203.0.113.80:5062";
            let ours = call.routes(End::Caller);

            // Above: ours come first for the caller, and the server is the next hop.
            let (at, to) = call.at(End::Caller);
            for rows in [
                each(
                    &[ours.clone(), vec![server.clone()]].concat(),
                    str::to_owned,
                ),
                format!("Route: {}, {server}\r\n", ours.join(", ")),
            ] {
                let bytes = call.request(End::Caller, "BYE", uri, &rows);
                let sent = lab.deliver(&bytes, at, to).sent();
                assert_eq!(sent.to, call.callee, "{}", shape.name);
                assert_eq!(rows_of(&sent), [server.as_str()], "{}", shape.name);
            }

            // Below (it appends where it should prepend): the server is the first Route. It takes
            // itself off, finds us next, and sends the request back; the Request-URI is what is left.
            for rows in [
                each(
                    &[vec![server.clone()], ours.clone()].concat(),
                    str::to_owned,
                ),
                format!("Route: {server} ,{}\r\n", ours.join(",")),
            ] {
                let target = call.target(End::Caller);
                let bytes = call.request(End::Caller, "BYE", &target, &rows);
                let sent = lab.deliver(&bytes, at, to).sent();
                assert_eq!(sent.to, call.callee, "{}", shape.name);
                let left: Vec<String> = rows_of(&sent);
                assert_eq!(left, [vec![server.clone()], ours.clone()].concat());
                let popped = crate::call::with_rows(
                    &sent.bytes,
                    "Route",
                    &[format!("Route: {}", ours.join(", "))],
                );
                let via = crate::call::via(call.callee, "z9hG4bKspiral");
                let popped = with_row(&popped, "Max-Forwards", &via);
                let spiral = lab.deliver(&popped, call.callee, call.callee_side).sent();
                assert_eq!(spiral.to, call.callee, "{}", shape.name);
                assert!(rows_of(&spiral).is_empty(), "{}", shape.name);
            }
        }
    }
}

fn rows_of(sent: &Sent) -> Vec<String> {
    crate::call::values(&rows(&sent.bytes, "Route"))
}

/// RFC 3261 §16.6 step 6: a next hop of the farm that lost its `lr` is a strict router; whatever its
/// value, `lr` is there or not.
#[test]
fn a18_the_presence_of_lr_counts_not_its_value() {
    for (lr, strict) in [
        (";lr", false),
        (";lr=on", false),
        (";lr=true", false),
        (";LR=yes", false),
        (";foo;lr", false),
        ("", true),
        (";foo", true),
        (";xlr", true),
    ] {
        let shape = &SHAPES[0];
        let mut lab = shape.lab();
        let call = shape.call(&mut lab, Way::In, "lr");
        let next = format!("sip:edge@{}{lr}", call.callee);
        let rows = format!(
            "{}Route: <{next}>\r\n",
            each(&call.routes(End::Caller), str::to_owned)
        );
        let uri = "sip:callee@203.0.113.80:5062";
        let bytes = call.request(End::Caller, "BYE", uri, &rows);
        let (from, to) = call.at(End::Caller);
        let sent = lab.deliver(&bytes, from, to).sent();
        assert_eq!(sent.to, call.callee, "{lr}");
        let (expected, left) = if strict {
            (next.as_str(), uri)
        } else {
            (uri, next.as_str())
        };
        assert_eq!(
            start_line(&sent.bytes),
            format!("BYE {expected} SIP/2.0"),
            "{lr}"
        );
        assert_eq!(rows_of(&sent), [format!("<{left}>")], "{lr}");
    }
}
