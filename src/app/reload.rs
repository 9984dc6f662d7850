//! What a reload may change: everything but what sockets, threads and keys were made from.

use crate::config::{Config, Fault};

/// Names every change that needs a restart; empty if `new` can take the place of `old` live.
pub(super) fn restart_needed(old: &Config, new: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fixed = |key: &str, same: bool| {
        if !same {
            faults.push(Fault {
                key: key.to_owned(),
                value: String::new(),
                reason: "cannot change while running: restart viaduct".to_owned(),
            });
        }
    };
    fixed("node", old.node == new.node);
    // The secrets of tokens rotate; whether the master secret is the same, its reader sees.
    fixed("workers", old.workers == new.workers);
    fixed("datapath", old.datapath == new.datapath);
    fixed("limit.sources", old.limit.sources == new.limit.sources);
    let room = |config: &Config| (config.transactions.max, config.transactions.message_bytes);
    fixed("transactions.max", room(old).0 == room(new).0);
    fixed("transactions.message_bytes", room(old).1 == room(new).1);
    fixed("metrics", old.metrics == new.metrics);
    fixed("control.socket", old.control.socket == new.control.socket);
    fixed(
        "control.decisions",
        old.control.decisions == new.control.decisions,
    );
    fixed("listeners", old.listeners.len() == new.listeners.len());
    for (index, (old, new)) in old.listeners.iter().zip(&new.listeners).enumerate() {
        fixed(
            &format!("listeners[{index}].address"),
            old.address == new.address,
        );
        fixed(&format!("listeners[{index}].name"), old.name == new.name);
        fixed(
            &format!("listeners[{index}].freebind"),
            old.freebind == new.freebind,
        );
        fixed(
            &format!("listeners[{index}].interface"),
            old.interface == new.interface,
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [[listeners]]
        name = "clients"
        address = "198.18.0.1:5060"
        [[pools]]
        name = "farm"
        servers = [{ name = "s1", address = "198.18.1.11:5060" }]
    "#;

    #[test]
    fn pools_and_lists_change_live_and_sockets_do_not() {
        let old = Config::parse(TEXT).unwrap();
        let with = |from: &str, to: &str| Config::parse(&TEXT.replace(from, to)).unwrap();
        assert!(restart_needed(&old, &with("198.18.1.11", "198.18.1.12")).is_empty());
        assert!(
            restart_needed(
                &old,
                &with("[[pools]]", "deny = [\"198.18.9.9\"]\n[[pools]]")
            )
            .is_empty()
        );
        let policy = with(
            "[[pools]]",
            "stateful = [\"INVITE\"]\n[[pools]]\npolicy = \"tlwl\"\nslow_start = 5",
        );
        assert_ne!(policy, old);
        assert!(restart_needed(&old, &policy).is_empty());
        let moved = restart_needed(&old, &with("198.18.0.1:5060", "198.18.0.1:5070"));
        assert_eq!(moved[0].key, "listeners[0].address");
        let limit = "[limit]\npackets_per_second = 5\ndry_run = true\n";
        let limited = Config::parse(&format!("{TEXT}\n{limit}")).unwrap();
        assert!(restart_needed(&old, &limited).is_empty());
        let larger = Config::parse(&format!("{TEXT}\n{limit}sources = 70000\n")).unwrap();
        assert_eq!(restart_needed(&limited, &larger)[0].key, "limit.sources");
        let node = Config::parse(&format!("node = 3\n{TEXT}")).unwrap();
        assert_eq!(restart_needed(&old, &node)[0].key, "node");
    }
}
