//! Two configurations, rule by rule.

use core::fmt;
use std::sync::Arc;

use crate::affinity::Keys;
use crate::balance::Moves;
use crate::config::{Action, Config, KeySource, Peers, Policy, Route};
use crate::net::ServerIndex;
use crate::route::{Plan, PlanError, Pool, ServerRegistry};

/// What becomes of calls when one configuration takes the place of another.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Rules that are in both, in the order of the new table.
    pub(super) rules: Vec<RuleChange>,
    /// Whether the tables have the same conditions in the same order: then no call meets another
    /// rule than before.
    pub(super) same_conditions: bool,
    /// Rules of the new table that the old one lacks.
    pub(super) added: Vec<String>,
    /// Rules of the old table that the new one lacks.
    pub(super) removed: Vec<String>,
    /// Servers whose name stays and whose address does not: name, old, new.
    pub(super) readdressed: Vec<(String, String, String)>,
    /// Names of all servers, by slot.
    names: Vec<String>,
}

/// A rule that both tables have.
#[derive(Debug)]
pub(super) struct RuleChange {
    pub(super) label: String,
    /// What it did and does, if that differs.
    pub(super) action: Option<(String, String)>,
    /// Which of its calls another server gets; `None` if it does not balance.
    pub(super) moves: Option<Moves>,
    /// Share of its calls that go elsewhere, 0 to 1.
    pub(super) share: f64,
}

impl Comparison {
    /// Compares two configurations, each with its keys.
    ///
    /// # Errors
    /// One of them cannot become a plan.
    pub(crate) fn new(
        (old, old_keys): (&Config, &Arc<Keys>),
        (new, new_keys): (&Config, &Arc<Keys>),
    ) -> Result<Self, PlanError> {
        // As a reload does it: one registry, so that a slot is the same server in both plans.
        let mut registry = ServerRegistry::new();
        let old_plan = Plan::build(old, &mut registry, old_keys)?;
        let new_plan = Plan::build(new, &mut registry, new_keys)?;
        let (old_rules, new_rules) = (rules(old), rules(new));

        let mut left: Vec<Option<&Route>> = old_rules.iter().map(Some).collect();
        let mut compared = Vec::new();
        let mut added = Vec::new();
        for (number, rule) in new_rules.iter().enumerate() {
            let label = label(rule, number);
            let before = left
                .iter_mut()
                .find(|other| other.is_some_and(|other| same_conditions(other, rule)))
                .and_then(Option::take);
            match before {
                Some(before) => compared.push(change(label, before, &old_plan, rule, &new_plan)),
                None => added.push(label),
            }
        }
        let removed = left.iter().enumerate();
        let removed: Vec<String> = removed
            .filter_map(|(number, rule)| Some(label(rule.as_ref()?, number)))
            .collect();
        let in_order = old_rules.len() == new_rules.len()
            && old_rules
                .iter()
                .zip(&new_rules)
                .all(|(old, new)| same_conditions(old, new));
        Ok(Self {
            rules: compared,
            same_conditions: in_order,
            added,
            removed,
            readdressed: readdressed(&old_plan, &new_plan),
            names: names(&new_plan),
        })
    }
}

/// The rules as they are served: none at all is one that sends everything to the only pool.
fn rules(config: &Config) -> Vec<Route> {
    if !config.routes.is_empty() {
        return config.routes.clone();
    }
    let pool = config.pools.first().map(|pool| pool.name.clone());
    vec![Route {
        name: None,
        listener: None,
        from: Peers::Any,
        sources: vec![],
        methods: vec![],
        schemes: vec![],
        domains: vec![],
        user_prefixes: vec![],
        header: None,
        action: Action::Pool {
            pool: pool.unwrap_or_default(),
            key: KeySource::CallId,
        },
    }]
}

fn label(rule: &Route, number: usize) -> String {
    let without_conditions = Route {
        name: None,
        listener: None,
        from: Peers::Any,
        sources: vec![],
        methods: vec![],
        schemes: vec![],
        domains: vec![],
        user_prefixes: vec![],
        header: None,
        action: rule.action.clone(),
    };
    match &rule.name {
        Some(name) => format!("rule {name}"),
        None if same_conditions(rule, &without_conditions) => "every request".to_owned(),
        None => format!("rule routes[{number}]"),
    }
}

/// Whether the same requests meet both, all else being equal.
fn same_conditions(one: &Route, other: &Route) -> bool {
    let bare = |rule: &Route| Route {
        name: None,
        action: Action::Drop,
        ..rule.clone()
    };
    bare(one) == bare(other)
}

fn change(label: String, old: &Route, old_plan: &Plan, new: &Route, new_plan: &Plan) -> RuleChange {
    let pool = |plan: &Plan, name: &str| {
        let mut pools = plan.pools().iter();
        pools.find(|pool| *pool.name == *name).cloned()
    };
    let (moves, share) = match (&old.action, &new.action) {
        (
            Action::Pool {
                pool: old_pool,
                key: old_key,
            },
            Action::Pool {
                pool: new_pool,
                key,
            },
        ) => {
            let (old, new) = (pool(old_plan, old_pool), pool(new_plan, new_pool));
            // With another secret every key is another one.
            let same_secret = old_plan.keys().table_seed() == new_plan.keys().table_seed();
            let same_keys = old_key == key && same_secret;
            let moves = moves(old.as_ref(), new.as_ref(), same_keys);
            let share = moves.share();
            (Some(moves), share)
        }
        (old, new) if old == new => (None, 0.0),
        _ => (None, 1.0),
    };
    let before = described(&old.action, old_plan);
    let after = described(&new.action, new_plan);
    RuleChange {
        label,
        action: (before != after).then_some((before, after)),
        moves,
        share,
    }
}

/// Where keys go. What a policy with state chooses is not a matter of keys: shown is what becomes of
/// requests without a transaction.
fn moves(old: Option<&Pool>, new: Option<&Pool>, same_keys: bool) -> Moves {
    let without_table =
        |pool: Option<&Pool>| pool.is_some_and(|pool| pool.is_up() && pool.table().is_none());
    if without_table(old) || without_table(new) {
        let old = |key| old.and_then(|pool| pool.select(key));
        let new = |key| new.and_then(|pool| pool.select(key));
        return if same_keys {
            Moves::sampled(old, new)
        } else {
            Moves::sampled(old, old).times(&Moves::sampled(new, new))
        };
    }
    let old = old.and_then(Pool::table);
    let new = new.and_then(Pool::table);
    if same_keys {
        Moves::between(old, new)
    } else {
        Moves::unrelated(old, new)
    }
}

fn described(action: &Action, plan: &Plan) -> String {
    match action {
        Action::Pool { pool, key } => {
            let policy = plan.pools().iter().find(|of| *of.name == **pool);
            let policy = policy.map_or_else(String::new, |pool| match pool.policy {
                Policy::Maglev => String::new(),
                other => format!(", {}", other.as_str()),
            });
            let key = match key {
                KeySource::CallId => "call-id",
                KeySource::Aor => "aor",
                KeySource::From => "from",
                KeySource::RuriUser => "ruri-user",
                KeySource::Source => "source",
                KeySource::Header(name) => return format!("pool {pool} by header {name}{policy}"),
            };
            format!("pool {pool} by {key}{policy}")
        }
        Action::NextHop(address) => format!("next hop {address}"),
        Action::Reject(status) => format!("reject {status}"),
        Action::Drop => "drop".to_owned(),
    }
}

fn readdressed(old: &Plan, new: &Plan) -> Vec<(String, String, String)> {
    let changed = |server: &crate::route::Server| {
        let before = old.server(server.index)?;
        (before.address != server.address).then(|| {
            let (was, is) = (before.address.to_string(), server.address.to_string());
            (server.name.to_string(), was, is)
        })
    };
    new.servers().iter().filter_map(changed).collect()
}

fn names(plan: &Plan) -> Vec<String> {
    let servers = plan.servers().iter();
    servers.map(|server| server.name.to_string()).collect()
}

/// A share as a percentage; what is not nothing does not look like it.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        small if small < 0.01 => "<0.01 %".to_owned(),
        percent => format!("{percent:.2} %"),
    }
}

impl Comparison {
    fn name(&self, server: Option<ServerIndex>) -> &str {
        let Some(server) = server else {
            return "no server";
        };
        let name = self.names.get(usize::from(server.0));
        name.map_or("?", String::as_str)
    }

    fn show_moves(&self, moves: &Moves, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut servers: Vec<ServerIndex> = moves
            .ways()
            .filter(|(from, to, _)| from != to)
            .flat_map(|(from, to, _)| [from, to])
            .flatten()
            .collect();
        servers.sort_unstable();
        servers.dedup();
        for server in servers {
            let (was, is) = moves.of(server);
            let word = match is.total_cmp(&was) {
                core::cmp::Ordering::Less => "loses",
                core::cmp::Ordering::Equal => "keeps its share",
                core::cmp::Ordering::Greater => "gains",
            };
            let name = self.name(Some(server));
            write!(f, "\n  {name} {word}: {} -> {}", percent(was), percent(is))?;
            let from_it = moves
                .ways()
                .filter(|(from, to, _)| *from == Some(server) && from != to);
            for (number, (_, to, share)) in from_it.enumerate() {
                let lead = if number == 0 { "; " } else { ", " };
                write!(f, "{lead}{} to {}", percent(share), self.name(to))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, rule) in self.rules.iter().enumerate() {
            let lead = if number == 0 { "" } else { "\n" };
            let share = percent(rule.share);
            match rule.moves {
                Some(_) => write!(f, "{lead}{}: {share} of its new calls move", rule.label)?,
                None => write!(f, "{lead}{}: {share} of its requests change", rule.label)?,
            }
            if let Some((old, new)) = &rule.action {
                write!(f, "; was {old}, is {new}")?;
            }
            if let Some(moves) = &rule.moves {
                self.show_moves(moves, f)?;
            }
        }
        for rule in &self.added {
            write!(f, "\n{rule}: new; what meets it met another rule or none")?;
        }
        for rule in &self.removed {
            write!(f, "\n{rule}: gone; what met it meets another rule or none")?;
        }
        if !self.same_conditions {
            f.write_str(
                "\nthe conditions or their order differ: how many requests meet another rule \
                 depends on the traffic and is not in the shares",
            )?;
        }
        for (name, old, new) in &self.readdressed {
            write!(
                f,
                "\nserver {name}: {old} becomes {new}; its ringing calls and dialogs go there too"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Secret;

    fn config(servers: &str, rest: &str) -> Config {
        Config::parse(&format!(
            "[[listeners]]\nname = \"c\"\naddress = \"198.18.0.1:5060\"\n[[pools]]\n\
             name = \"farm\"\nservers = [{servers}]\n[[pools]]\nname = \"spare\"\n\
             servers = [{{ name = \"x\", address = \"198.18.1.99:5060\" }}]\n{rest}"
        ))
        .unwrap()
    }

    fn server(number: u8) -> String {
        format!("{{ name = \"s{number}\", address = \"198.18.1.{number}:5060\" }}")
    }

    fn servers(numbers: &[u8]) -> String {
        let all: Vec<String> = numbers.iter().map(|number| server(*number)).collect();
        all.join(", ")
    }

    const ONE_RULE: &str = "[[routes]]\npool = \"farm\"\n";

    fn compare(old: &Config, new: &Config) -> Comparison {
        let secret = Secret::from_hex(&"0123456789abcdef".repeat(4)).unwrap();
        let keys = Arc::new(Keys::new(&secret));
        Comparison::new((old, &keys), (new, &keys)).unwrap()
    }

    #[test]
    fn the_same_configuration_moves_nothing() {
        let config = config(&servers(&[1, 2, 3]), ONE_RULE);
        let comparison = compare(&config, &config);
        assert_eq!(comparison.rules[0].share, 0.0);
        assert_eq!(
            comparison.to_string(),
            "every request: 0 % of its new calls move"
        );
    }

    #[test]
    fn a_server_more_takes_its_share_from_all() {
        let (old, new) = (
            config(&servers(&[1, 2, 3]), ONE_RULE),
            config(&servers(&[1, 2, 3, 4]), ONE_RULE),
        );
        let comparison = compare(&old, &new);
        let share = comparison.rules[0].share;
        assert!((0.25..0.27).contains(&share), "{share}");
        let text = comparison.to_string();
        for line in [
            "s1 loses: 33.33 % -> 25.00 %",
            "s4 gains: 0 % -> 25.00 %",
            "% to s4",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn order_and_names_of_rules_change_nothing_and_another_key_nearly_all() {
        let old = config(&servers(&[1, 2, 3, 4]), ONE_RULE);
        let renamed = format!("{ONE_RULE}name = \"calls\"\n");
        let turned = config(&servers(&[4, 3, 2, 1]), &renamed);
        let comparison = compare(&old, &turned);
        assert_eq!(comparison.rules[0].share, 0.0);
        assert_eq!(comparison.rules[0].label, "rule calls");
        let by_source = config(
            &servers(&[1, 2, 3, 4]),
            &format!("{ONE_RULE}key = \"source\"\n"),
        );
        let comparison = compare(&old, &by_source);
        let share = comparison.rules[0].share;
        assert!((0.74..0.76).contains(&share), "{share}");
        let text = comparison.to_string();
        assert!(
            text.contains("was pool farm by call-id, is pool farm by source"),
            "{text}"
        );
    }

    #[test]
    fn another_policy_is_named_and_moves_what_has_no_transaction() {
        let with = |policy: &str, numbers: &[u8]| {
            let rest = format!("policy = \"{policy}\"\n{ONE_RULE}");
            let text = format!(
                "[[listeners]]\nname = \"c\"\naddress = \"198.18.0.1:5060\"\n\
                 stateful = [\"INVITE\"]\n[[pools]]\nname = \"farm\"\nservers = [{}]\n{rest}",
                servers(numbers)
            );
            Config::parse(&text).unwrap()
        };
        let maglev = with("maglev", &[1, 2, 3]);
        let tlwl = compare(&maglev, &with("tlwl", &[1, 2, 3]));
        assert_eq!(tlwl.rules[0].share, 0.0);
        let text = tlwl.to_string();
        assert!(
            text.contains("was pool farm by call-id, is pool farm by call-id, tlwl"),
            "{text}"
        );
        // Two functions of the key agree by chance only.
        let hashed = with("rendezvous", &[1, 2, 3]);
        let share = compare(&maglev, &hashed).rules[0].share;
        assert!((0.65..0.68).contains(&share), "{share}");
        let share = compare(&hashed, &with("rendezvous", &[1, 2])).rules[0].share;
        assert!((0.32..0.35).contains(&share), "{share}");
    }

    #[test]
    fn another_secret_moves_all_but_what_chance_keeps() {
        let config = config(&servers(&[1, 2]), ONE_RULE);
        let keys = |hex: &str| {
            let secret = Secret::from_hex(&hex.repeat(4)).unwrap();
            Arc::new(Keys::new(&secret))
        };
        let (old, new) = (keys("0123456789abcdef"), keys("fedcba9876543210"));
        let comparison = Comparison::new((&config, &old), (&config, &new)).unwrap();
        let share = comparison.rules[0].share;
        assert!((0.49..0.51).contains(&share), "{share}");
    }

    #[test]
    fn another_pool_or_action_moves_everything() {
        let old = config(&servers(&[1, 2]), ONE_RULE);
        for action in [
            "pool = \"spare\"",
            "reject = 503",
            "next_hop = \"198.18.9.9:5060\"",
        ] {
            let new = config(&servers(&[1, 2]), &format!("[[routes]]\n{action}\n"));
            let comparison = compare(&old, &new);
            assert_eq!(comparison.rules[0].share, 1.0, "{action}");
            assert!(comparison.same_conditions);
        }
    }

    #[test]
    fn rules_are_paired_by_their_conditions() {
        let register = "[[routes]]\nname = \"reg\"\nmethods = [\"REGISTER\"]\npool = \"spare\"\n";
        let old = config(&servers(&[1, 2]), ONE_RULE);
        let new = config(&servers(&[1, 2]), &format!("{register}{ONE_RULE}"));
        let comparison = compare(&old, &new);
        assert_eq!(comparison.added, ["rule reg"]);
        assert!(comparison.removed.is_empty() && !comparison.same_conditions);
        assert_eq!(comparison.rules.len(), 1);
        assert_eq!(comparison.rules[0].share, 0.0);
        let back = compare(&new, &old);
        assert_eq!(back.removed, ["rule reg"]);
        assert!(back.to_string().contains("depends on the traffic"));
    }

    #[test]
    fn a_server_that_keeps_its_name_takes_its_calls_to_its_new_address() {
        let old = config(&servers(&[1, 2]), ONE_RULE);
        let moved = format!(
            "{}, {{ name = \"s2\", address = \"198.18.1.22:5060\" }}",
            server(1)
        );
        let comparison = compare(&old, &config(&moved, ONE_RULE));
        assert_eq!(comparison.rules[0].share, 0.0);
        let text = comparison.to_string();
        assert!(
            text.contains("server s2: 198.18.1.2:5060 becomes 198.18.1.22:5060"),
            "{text}"
        );
    }

    #[test]
    fn shares_never_look_like_nothing_when_they_are_not() {
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.000_01), "<0.01 %");
        assert_eq!(percent(0.123_456), "12.35 %");
        assert_eq!(percent(1.0), "100.00 %");
    }
}
