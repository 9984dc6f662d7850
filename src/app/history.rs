//! The plans of the process's life, as far as they are remembered: for who asks later why a call
//! went where it went.
//!
//! A plan's tables are not kept, they are functions of the keys and of what is kept: every pool's
//! servers with weight, priority and state. Pools that a change has left alone share their rows.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::affinity::Keys;
use crate::balance::{AffinityKey, Chooser, Member, Seat, StatelessSelect as _};
use crate::config::{Config, Policy};
use crate::limits::{PLAN_MEMBERS_REMEMBERED_MAX, PLANS_REMEMBERED_MAX};
use crate::net::{PoolIndex, ServerId, ServerIndex, SocketAddr};
use crate::route::{Action, Plan, ServerState, Standing, server_id};

/// Servers named as the next ones if those before were down.
const NEXT_SERVERS: usize = 3;

/// A server of a pool, as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberThen {
    pub(super) index: ServerIndex,
    pub(super) id: ServerId,
    pub(super) name: Box<str>,
    pub(super) address: SocketAddr,
    pub(super) weight: u32,
    pub(super) priority: u8,
    pub(super) state: ServerState,
    pub(super) takes_calls: bool,
}

/// A pool, as it was.
#[derive(Clone, Debug)]
pub(super) struct PoolThen {
    pub(super) name: Box<str>,
    pub(super) policy: Policy,
    pub(super) members: Arc<[MemberThen]>,
}

/// A rule of the route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleThen {
    pub(super) name: String,
    /// What its pool is asked with.
    pub(super) key: Option<&'static str>,
}

/// What is remembered of a plan.
#[derive(Clone, Debug)]
pub(super) struct PlanThen {
    pub(super) version: u32,
    /// Nanoseconds since the epoch.
    pub(super) at_nanos: u64,
    /// Why it took the place of the one before.
    pub(super) why: String,
    /// Its rules.
    pub(super) rules: Arc<[RuleThen]>,
    /// By position.
    pub(super) pools: Vec<PoolThen>,
}

/// The plans, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    plans: VecDeque<PlanThen>,
}

impl History {
    /// Remembers a plan that workers follow from now on.
    pub(super) fn add(
        &mut self,
        (plan, config, standing): (&Plan, &Config, &Standing),
        at_nanos: u64,
        why: &str,
    ) {
        let before = self.plans.back();
        let pools = config.pools.iter().map(|pool| {
            let members: Vec<MemberThen> = standing
                .members(pool)
                .filter_map(|server| {
                    let id = server_id(&server.name);
                    let planned = plan.server_by_id(id)?;
                    Some(MemberThen {
                        index: planned.index,
                        id,
                        name: planned.name.clone(),
                        address: planned.address,
                        weight: standing.of(id).weight.unwrap_or(server.weight),
                        priority: server.priority,
                        state: planned.state,
                        takes_calls: planned.takes_calls(),
                    })
                })
                .collect();
            let mut known = before.into_iter().flat_map(|plan| &plan.pools);
            let same = known.find(|known| *known.members == *members);
            PoolThen {
                name: pool.name.as_str().into(),
                policy: pool.policy,
                members: same.map_or_else(|| members.into(), |same| same.members.clone()),
            }
        });
        let pools = pools.collect();
        let rules: Vec<RuleThen> = plan
            .rules()
            .iter()
            .enumerate()
            .map(|(number, rule)| RuleThen {
                name: rule_name(rule.name.as_deref(), number, config),
                key: match &rule.action {
                    Action::Pool { key, .. } => Some(key.as_str()),
                    _ => None,
                },
            })
            .collect();
        let rules = match before {
            Some(before) if *before.rules == *rules => before.rules.clone(),
            _ => rules.into(),
        };
        self.plans.push_back(PlanThen {
            version: plan.version,
            at_nanos,
            why: why.to_owned(),
            rules,
            pools,
        });
        while self.plans.len() > PLANS_REMEMBERED_MAX
            || (self.plans.len() > 1 && self.members() > PLAN_MEMBERS_REMEMBERED_MAX)
        {
            self.plans.pop_front();
        }
    }

    /// Rows that take memory: those shared with the plan before count once.
    fn members(&self) -> usize {
        let mut last: &[PoolThen] = &[];
        let mut count = 0;
        for plan in &self.plans {
            for pool in &plan.pools {
                let shared = last
                    .iter()
                    .any(|before| Arc::ptr_eq(&before.members, &pool.members));
                count += if shared { 1 } else { 1 + pool.members.len() };
            }
            last = &plan.pools;
        }
        count
    }

    /// The plan of a version.
    pub(super) fn plan(&self, version: u32) -> Option<&PlanThen> {
        self.plans.iter().rev().find(|plan| plan.version == version)
    }
}

/// A rule's name as explanations say it.
fn rule_name(name: Option<&str>, number: usize, config: &Config) -> String {
    match (name, config.routes.get(number)) {
        (Some(name), _) => name.to_owned(),
        (None, Some(_)) => format!("routes[{number}]"),
        (None, None) => "every request".to_owned(),
    }
}

impl PlanThen {
    /// A pool by its position.
    pub(super) fn pool(&self, index: PoolIndex) -> Option<&PoolThen> {
        self.pools.get(usize::from(index.0))
    }
}

impl PoolThen {
    /// The choice of then, as it is made without state; `None` if no server took new calls.
    pub(super) fn chooser(&self, keys: &Keys) -> Option<Chooser> {
        let takers = self.members.iter().filter(|member| member.takes_calls);
        let seats: Vec<Seat> = takers
            .map(|member| Seat {
                member: Member {
                    server: member.index,
                    id: member.id,
                    weight: member.weight,
                },
                priority: member.priority,
                // What these say depends on the moment; a key alone is asked for here.
                max_calls: 0,
                max_calls_per_second: 0,
                returned_at: None,
            })
            .collect();
        // The pool's position tells counts of calls apart, which nobody asks for here.
        let chooser = Chooser::new(&keys.table_seed(), self.policy, PoolIndex(0), &seats).ok()?;
        (!chooser.is_empty()).then_some(chooser)
    }

    /// The server of a key by the choice of then, and who would have been if it and each after it
    /// had been down.
    pub(super) fn candidates(&self, keys: &Keys, key: AffinityKey) -> Vec<ServerIndex> {
        let mut without = self.clone();
        let mut found = Vec::new();
        while found.len() < NEXT_SERVERS {
            let chosen = without.chooser(keys).and_then(|of| of.select(key));
            let Some(chosen) = chosen else { break };
            found.push(chosen);
            let mut members = without.members.to_vec();
            members.retain(|member| member.index != chosen);
            without.members = members.into();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Secret;
    use crate::route::{Health, ServerRegistry};

    const TEXT: &str = r#"
        [[listeners]]
        name = "clients"
        address = "198.18.0.1:5060"
        [[pools]]
        name = "farm"
        servers = [
            { name = "s1", address = "198.18.1.11:5060" },
            { name = "s2", address = "198.18.1.12:5060", weight = 2 },
            { name = "s3", address = "198.18.1.13:5060" },
            { name = "spare", address = "198.18.1.14:5060", priority = 1 },
        ]
        [[pools]]
        name = "other"
        policy = "rendezvous"
        servers = [{ name = "o1", address = "198.18.1.21:5060" }]
        [[routes]]
        name = "all"
        pool = "farm"
    "#;

    struct Life {
        config: Config,
        registry: ServerRegistry,
        keys: Arc<Keys>,
        standing: Standing,
        version: u32,
        history: History,
    }

    impl Life {
        fn new() -> Self {
            let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
            let mut life = Self {
                config: Config::parse(TEXT).unwrap(),
                registry: ServerRegistry::new(),
                keys: Arc::new(Keys::new(&secret)),
                standing: Standing::new(),
                version: 0,
                history: History::default(),
            };
            life.publish();
            life
        }

        fn publish(&mut self) -> Plan {
            self.version += 1;
            let mut plan =
                Plan::build_standing(&self.config, &mut self.registry, &self.keys, &self.standing)
                    .unwrap();
            plan.version = self.version;
            let parts = (&plan, &self.config, &self.standing);
            self.history.add(parts, u64::from(self.version), "a test");
            plan
        }
    }

    /// The table that is made again chooses as the plan's own did, whatever has become of it.
    #[test]
    fn a_pool_of_then_chooses_as_its_plan_did() {
        let mut life = Life::new();
        let mut plans = Vec::new();
        let s1 = server_id("s1");
        for step in 0..6 {
            match step {
                1 => life.standing.update(s1, |of| of.health = Health::Down),
                2 => life.standing.update(s1, |of| of.health = Health::Active),
                3 => life.standing.update(s1, |of| of.weight = Some(5)),
                4 => {
                    for name in ["s1", "s2", "s3"] {
                        life.standing
                            .update(server_id(name), |of| of.health = Health::Down);
                    }
                }
                5 => life.config = Config::parse(&TEXT.replace("s2", "s9")).unwrap(),
                _ => {}
            }
            plans.push(life.publish());
        }
        for plan in plans {
            let then = life.history.plan(plan.version).unwrap();
            assert_eq!(then.rules[0].name, "all");
            assert_eq!(then.rules[0].key, Some("call-id"));
            for number in 0..200_u64 {
                let key = AffinityKey(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let pool = PoolIndex(0);
                let chosen = plan.pool(pool).unwrap().select(key);
                let candidates = then.pool(pool).unwrap().candidates(&life.keys, key);
                assert_eq!(candidates.first().copied(), chosen);
                assert!(candidates.len() <= NEXT_SERVERS);
            }
        }
    }

    #[test]
    fn pools_that_did_not_change_share_their_rows_and_old_plans_go() {
        let mut life = Life::new();
        let s1 = server_id("s1");
        for number in 0..PLANS_REMEMBERED_MAX {
            let health = [Health::Down, Health::Active][number % 2];
            life.standing.update(s1, |of| of.health = health);
            life.publish();
        }
        assert_eq!(life.history.plans.len(), PLANS_REMEMBERED_MAX);
        assert!(life.history.plan(1).is_none());
        assert!(life.history.plan(2).is_some());
        assert_eq!(
            life.history.plans.back().map(|plan| plan.version),
            Some(life.version)
        );
        let [first, second] = [2, 3].map(|version| life.history.plan(version).unwrap());
        assert!(!Arc::ptr_eq(
            &first.pools[0].members,
            &second.pools[0].members
        ));
        assert!(Arc::ptr_eq(
            &first.pools[1].members,
            &second.pools[1].members
        ));
    }
}
