//! One change of the farm after the other, while calls ring.

use std::time::Duration;

use crate::calls::{Farm, Ringing, cancelled, ring, spread};
use crate::fixture::*;

/// Rings on three servers of a farm of three, then the changes come.
#[track_caller]
fn through(what: &str, changes: &[Farm]) {
    for workers in [1, 4] {
        let mut lab = Lab::with_workers(&Farm::of(&[1, 2, 3]).config(), workers);
        let calls = Ringing::many(&mut lab, 60);
        assert_eq!(spread(&calls), 3);
        let configs: Vec<String> = changes.iter().map(Farm::config).collect();
        ring(&mut lab, &calls, &configs, what);
        assert!(workers == 1 || lab.handed_over > 0);
    }
}

#[test]
fn a32_servers_added() {
    through(
        "added",
        &[Farm::of(&[1, 2, 3, 4]), Farm::of(&[1, 2, 3, 4, 5, 6, 7, 8])],
    );
}

#[test]
fn a32_servers_removed_the_calls_own_too() {
    through(
        "removed",
        &[
            Farm::of(&[2, 3]),
            Farm::of(&[3, 4]),
            Farm::of(&[4]),
            Farm::of(&[5, 6]),
            Farm::of(&[1, 2, 3]),
            Farm::of(&[9]),
        ],
    );
}

#[test]
fn a32_servers_reweighted_and_drained() {
    let weights = |list: [u32; 3]| Farm {
        servers: (1..).zip(list).map(|(n, weight)| (n, weight, 0)).collect(),
        ..Farm::of(&[])
    };
    through(
        "weights",
        &[
            weights([1, 1, 1000]),
            weights([0, 0, 1]),
            weights([7, 0, 3]),
            weights([0, 0, 0]),
        ],
    );
}

#[test]
fn a32_servers_reordered() {
    through(
        "order",
        &[
            Farm::of(&[3, 2, 1]),
            Farm::of(&[2, 3, 1]),
            Farm::of(&[9, 3, 8, 1, 2]),
        ],
    );
}

#[test]
fn a32_priorities_changed() {
    let priorities = |list: [u8; 3]| Farm {
        servers: (1..)
            .zip(list)
            .map(|(n, priority)| (n, 1, priority))
            .collect(),
        ..Farm::of(&[])
    };
    through(
        "priorities",
        &[
            priorities([0, 1, 2]),
            priorities([9, 1, 1]),
            priorities([5, 5, 4]),
        ],
    );
}

#[test]
fn a32_another_way_of_reaching_a_server() {
    let reach = |pool| Farm {
        pool,
        ..Farm::of(&[1, 2, 3])
    };
    through(
        "reach",
        &[
            reach("reach = \"route\""),
            reach("reach = \"request-uri\""),
            reach("reach = \"destination\"\nnetworks = [\"198.18.1.0/24\"]"),
        ],
    );
}

#[test]
fn a32_another_affinity_key() {
    let key = |rest| Farm {
        rest,
        ..Farm::of(&[1, 2, 3])
    };
    through(
        "key",
        &[
            key("[[routes]]\npool = \"farm\"\nkey = \"source\""),
            key("[[routes]]\npool = \"farm\"\nkey = \"from\""),
            key("[[routes]]\npool = \"farm\"\nkey = \"aor\""),
            key("[[routes]]\npool = \"farm\"\nkey = \"ruri-user\""),
            key("[[routes]]\npool = \"farm\"\nkey = \"header:User-Agent\""),
            key("[[routes]]\npool = \"farm\"\nkey = \"header:X-Nobody-Has\""),
        ],
    );
}

/// Rules that come and go around the one that the call met, and lead to the same pool.
#[test]
fn a32_other_rules_to_the_same_pool() {
    let rules = |rest| Farm {
        rest,
        ..Farm::of(&[1, 2, 3])
    };
    through(
        "rules",
        &[
            rules("[[routes]]\nmethods = [\"INVITE\"]\npool = \"farm\""),
            rules(
                "[[routes]]\ndomains = [\"nobody.example\"]\nreject = 404\n\
                 [[routes]]\ndomains = [\"self\"]\npool = \"farm\"",
            ),
            rules(
                "[[routes]]\nsources = [\"203.0.113.0/24\"]\ndrop = true\n\
                 [[routes]]\nsources = [\"198.18.200.0/24\"]\nschemes = [\"sip\"]\npool = \"farm\"\n\
                 [[routes]]\nreject = 403",
            ),
            // CANCEL and ACK lack the header; their INVITE had it, and has a pin.
            rules(
                "[[routes]]\nheader = { name = \"User-Agent\", contains = \"lab phone\" }\npool = \"farm\"\n\
                 [[routes]]\nreject = 403",
            ),
        ],
    );
}

/// Everything at once, one thing after the other.
#[test]
fn a32_a_busy_operator() {
    let with = |servers: &[(u8, u32, u8)], pool, rest| Farm {
        servers: servers.to_vec(),
        pool,
        rest,
    };
    let by_source = "[[routes]]\npool = \"farm\"\nkey = \"source\"";
    through(
        "busy",
        &[
            with(&[(1, 1, 0), (2, 5, 0), (3, 1, 1), (4, 1, 0)], "", ""),
            with(&[(4, 1, 0), (3, 1, 0)], "reach = \"route\"", ""),
            with(&[(5, 1, 0), (4, 0, 0)], "", by_source),
            with(
                &[(2, 0, 0), (1, 3, 7)],
                "networks = [\"198.18.1.0/24\"]",
                by_source,
            ),
            with(&[(6, 1, 0)], "reach = \"request-uri\"", ""),
            with(&[(3, 1, 0), (2, 1, 0), (1, 1, 0)], "", ""),
            with(&[(9, 1, 0)], "", ""),
        ],
    );
}

/// A new call goes by the new farm at once, also while others ring; and when those are over, their
/// Call-IDs do too.
#[test]
fn a32_the_new_farm_counts_for_new_calls() {
    let mut lab = Lab::with_workers(&Farm::of(&[1, 2, 3]).config(), 2);
    let calls = Ringing::many(&mut lab, 30);
    lab.reload(&Farm::of(&[7]).config());
    for n in 0..30 {
        let new = Ringing::begin(&mut lab, &format!("new-{n}"));
        assert_eq!(new.invite.to, "198.18.1.17:5060".parse().unwrap());
    }
    cancelled(&mut lab, &calls, "old farm");
    lab.wait(Duration::from_secs(33));
    for call in &calls {
        let again = call.follow_up(&mut lab, "INVITE", 5060, 0);
        assert_eq!(again.to, "198.18.1.17:5060".parse().unwrap());
    }
}

/// Between two 180s lies a minute (RFC 3261 §13.3.1.1); Timer C gives three. One that is lost, or
/// two, end nothing.
#[test]
fn a32_a_lost_180_or_two_end_nothing() {
    let mut lab = Lab::new(&Farm::of(&[1, 2, 3]).config());
    let calls = Ringing::many(&mut lab, 30);
    for _ in 0..4 {
        lab.wait(Duration::from_secs(179));
        lab.reload(&Farm::of(&[8, 9]).config());
        for call in &calls {
            call.holds_together(&mut lab, "after 179 s");
            call.answered(&mut lab, 183);
        }
    }
    // A 100 does not start Timer C again (§16.7 step 2), and the end of it is the end of the pin.
    for call in &calls {
        call.answered(&mut lab, 100);
    }
    lab.wait(Duration::from_secs(190));
    assert_eq!(
        lab.pins.usage(lab.now),
        viaduct::affinity::PinUsage::default()
    );
}
