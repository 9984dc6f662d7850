//! What no single section can see: names that must exist, addresses that must differ.

use super::super::reader::Faults;
use super::super::{Action, Config, HeaderTest, KeySource, Listener, Peers, Pool, Route};
use crate::limits::{
    EXEMPT_NETWORKS_MAX, LISTENERS_MAX, POOLS_MAX, ROUTES_CONFIGURED_MAX, SERVERS_MAX,
};

/// What no single section can see.
pub(super) fn check(config: &Config, faults: &Faults) {
    if config.listeners.is_empty() {
        faults.add("listeners", "", "is empty: at least one listener is needed");
    }
    if config.pools.is_empty() {
        faults.add("pools", "", "is empty: at least one pool is needed");
    }
    if config.listeners.len() > LISTENERS_MAX {
        faults.add(
            "listeners",
            config.listeners.len(),
            format!("is over {LISTENERS_MAX}"),
        );
    }
    if config.pools.len() > POOLS_MAX {
        faults.add("pools", config.pools.len(), format!("is over {POOLS_MAX}"));
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        let earlier = &config.listeners[..index];
        if earlier.iter().any(|other| other.name == listener.name) {
            faults.add(
                format!("listeners[{index}].name"),
                &listener.name,
                "is taken already",
            );
        }
        if let Some(name) = &listener.node_listener {
            let own = config.listeners.iter().find(|other| other.name == *name);
            let same_family = |other: &Listener| {
                other.address.is_ipv4() == listener.address.is_ipv4() && other.name != listener.name
            };
            if !own.is_some_and(same_family) {
                faults.add(
                    format!("listeners[{index}].node_listener"),
                    format!("{name:?}"),
                    "is not the name of another listener of the same address family",
                );
            }
        }
        if earlier
            .iter()
            .any(|other| other.address == listener.address)
        {
            faults.add(
                format!("listeners[{index}].address"),
                listener.address,
                "is taken already",
            );
        }
    }
    let mut names: Vec<&str> = Vec::new();
    let mut servers: std::collections::HashSet<&str> = std::collections::HashSet::new();
    for (index, pool) in config.pools.iter().enumerate() {
        if names.contains(&pool.name.as_str()) {
            faults.add(
                format!("pools[{index}].name"),
                &pool.name,
                "is taken already",
            );
        }
        names.push(&pool.name);
        if pool.servers.is_empty() {
            faults.add(format!("pools[{index}].servers"), "", "is empty");
        }
        for (member, server) in pool.servers.iter().enumerate() {
            let path = format!("pools[{index}].servers[{member}]");
            // A name is one server everywhere: tokens and pins know it by nothing else.
            if !servers.insert(&server.name) {
                faults.add(format!("{path}.name"), &server.name, "is taken already");
            }
            if config
                .listeners
                .iter()
                .any(|listener| listener.address == server.address)
            {
                faults.add(
                    format!("{path}.address"),
                    server.address,
                    "is one of our listeners",
                );
            }
        }
    }
    if servers.len() > SERVERS_MAX {
        faults.add(
            "pools",
            format!("{} servers", servers.len()),
            format!("is over {SERVERS_MAX}"),
        );
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        let exempt = config.exempt(listener).len();
        if config.limit.is_on() && exempt > EXEMPT_NETWORKS_MAX {
            let reason = format!(
                "with the farm, next hops and trusted peers of listeners[{index}] make over \
                 {EXEMPT_NETWORKS_MAX} networks that are not limited"
            );
            faults.add("limit.whitelist", exempt, reason);
        }
    }
    if config.routes.len() > ROUTES_CONFIGURED_MAX {
        let reason = format!("is over {ROUTES_CONFIGURED_MAX}");
        faults.add("routes", config.routes.len(), reason);
    }
    for (index, route) in config.routes.iter().enumerate() {
        check_route(config, &names, &format!("routes[{index}]"), route, faults);
    }
    for (index, pool) in config.pools.iter().enumerate() {
        check_policy(config, &format!("pools[{index}]"), pool, faults);
    }
    if config.routes.is_empty() && config.pools.len() > 1 {
        faults.add(
            "routes",
            "",
            "is empty: with several pools each listener needs a route",
        );
    }
}

/// A policy that looks at load chooses for requests whose transaction is held; all others of the
/// same pool fall back to Maglev. Where there are no such requests, nothing is left that it does.
fn check_policy(config: &Config, path: &str, pool: &Pool, faults: &Faults) {
    if pool.policy.is_stateless() {
        return;
    }
    let leads_here = |route: &&Route| match &route.action {
        Action::Pool { pool: name, .. } => *name == pool.name,
        _ => false,
    };
    let brings_transactions = |route: &Route| {
        let of_rule = |listener: &&Listener| {
            let name = route.listener.as_deref();
            name.is_none_or(|name| name == listener.name)
        };
        let admits = |method: &String| route.methods.is_empty() || route.methods.contains(method);
        let mut listeners = config.listeners.iter().filter(of_rule);
        listeners.any(|listener| listener.stateful.iter().any(admits))
    };
    let mut ways = config.routes.iter().filter(leads_here).peekable();
    let useless = match ways.peek() {
        Some(_) => !ways.any(brings_transactions),
        // Without any rule everything goes to the only pool.
        None => {
            let stateless = |listener: &Listener| listener.stateful.is_empty();
            config.routes.is_empty() && config.listeners.iter().all(stateless)
        }
    };
    if useless {
        let reason = "looks at load, which takes a transaction, and no rule brings a request of \
                      listeners[].stateful to this pool: choose maglev or rendezvous";
        faults.add(format!("{path}.policy"), pool.policy.as_str(), reason);
    }
}

fn check_route(config: &Config, pools: &[&str], path: &str, route: &Route, faults: &Faults) {
    if let Some(name) = &route.listener
        && !config
            .listeners
            .iter()
            .any(|listener| listener.name == *name)
    {
        let reason = "is not the name of a listener";
        faults.add(format!("{path}.listener"), name, reason);
    }
    // CANCEL and ACK repeat Call-ID, From and Request-URI of their INVITE, and hardly ever anything
    // else (RFC 3261 §9.1, §17.1.1.3). What they lack, a pin must remember.
    let unpinned = config.datapath.pins == 0 && route.admits_invite();
    match &route.action {
        Action::Pool { pool, key } => {
            if !pools.contains(&pool.as_str()) {
                let reason = "is not the name of a pool";
                faults.add(format!("{path}.pool"), pool, reason);
            }
            if unpinned && let KeySource::Header(name) = key {
                let reason = "cannot be told for CANCEL and ACK, which lack that header: it needs \
                              pins (datapath.pins is 0) or methods without INVITE";
                faults.add(format!("{path}.key"), format!("header:{name}"), reason);
            }
            if unpinned && let Some(header) = &route.header {
                let reason = "cannot be told for CANCEL and ACK, which lack that header: it needs \
                              pins (datapath.pins is 0) or methods without INVITE";
                faults.add(format!("{path}.header"), &header.name, reason);
            }
            if route.from == Peers::Farm {
                let reason = "of the farm go out by next_hop; what names ourselves is balanced by \
                              the rules without from";
                faults.add(format!("{path}.pool"), pool, reason);
            }
        }
        Action::NextHop(address) => {
            if config
                .listeners
                .iter()
                .any(|listener| listener.address == *address)
            {
                let reason = "is one of our listeners";
                faults.add(format!("{path}.next_hop"), address, reason);
            }
        }
        Action::Reject(_) | Action::Drop => {}
    }
    if let Some(header) = &route.header {
        let (HeaderTest::Equals(text) | HeaderTest::Prefix(text) | HeaderTest::Contains(text)) =
            &header.test
        else {
            return;
        };
        if text.is_empty() {
            faults.add(format!("{path}.header"), "", "compares with nothing");
        }
    }
}
