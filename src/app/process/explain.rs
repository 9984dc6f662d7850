//! Why a call went where it went, from what workers have remembered of their decisions and what is
//! remembered of the plans they were made by.

use serde_json::{Value, json};

use super::Process;
use super::operator::fields;
use crate::admin::Reply;
use crate::affinity::{CallIdHash, Decision};
use crate::app::history::{PlanThen, PoolThen};
use crate::balance::{AffinityKey, Chooser};
use crate::forward::pin_of;
use crate::journal::rfc3339;
use crate::net::{ListenerIndex, ServerIndex};
use crate::sys::clock;

impl Process {
    /// What is remembered of a Call-ID.
    pub(super) fn explain(&self, call_id: &[u8]) -> Reply {
        let hash = self.keys.call_id_hash(call_id);
        let found = self.shared.decisions().find(hash);
        let decisions: Vec<Value> = found
            .iter()
            .map(|decision| self.tell_decision(hash, decision))
            .collect();
        if decisions.is_empty() {
            let pins = self.config.listeners.iter().zip(0_u8..);
            let pins: Vec<Value> = pins
                .filter_map(|(_, listener)| self.tell_pin(hash, ListenerIndex(listener)))
                .collect();
            if pins.is_empty() {
                return Err(self.nothing_remembered());
            }
            return Ok(fields(json!({ "decisions": decisions, "pins": pins })));
        }
        Ok(fields(json!({ "decisions": decisions })))
    }

    fn nothing_remembered(&self) -> String {
        match self.shared.decisions().capacity() {
            0 => "control.decisions is 0: no decision is remembered".to_owned(),
            capacity => format!(
                "nothing is remembered of this Call-ID: it never came here as a new call, or more \
                 than about {capacity} (control.decisions) have come since; `viaduct explain` says \
                 what would become of a message now"
            ),
        }
    }

    fn tell_decision(&self, hash: CallIdHash, decision: &Decision) -> Value {
        let now = clock::now();
        let age = now.since(decision.at);
        let at = clock::real_nanos().saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(0));
        let then = self.history.plan(decision.plan);
        let pool = then.and_then(|then| then.pool(decision.pool));
        let rule = decision
            .rule
            .and_then(|rule| then?.rules.get(usize::from(rule)));
        let key = AffinityKey(decision.key);
        json!({
            "at": rfc3339(at),
            "age_seconds": age.as_secs(),
            "listener": self.listener_name(decision.passage.listener),
            "from": if decision.passage.from_farm { "the farm" } else { "outside" },
            "rule": rule.map(|rule| rule.name.as_str()),
            "key": format!("{:016x}", decision.key),
            "key_by": rule.and_then(|rule| rule.key),
            "plan": decision.plan,
            "plan_since": then.map(|then| rfc3339(then.at_nanos)),
            "plan_why": then.map(|then| then.why.as_str()),
            "pool": pool.map(|pool| &*pool.name),
            "table": pool.map(|pool| self.tell_pool(pool, key)),
            "chosen_by": decision.ground.as_str(),
            "tried": decision
                .tried
                .iter()
                .map(|server| self.server_name(*server))
                .collect::<Vec<_>>(),
            "server": decision.server().map(|server| self.server_name(server)),
            "address": decision.server().and_then(|server| address_then(then, server)),
            "pin": self.tell_pin(hash, decision.passage.listener),
            "now": pool.map(|pool| self.tell_now(pool, key)),
        })
    }

    /// The servers of a pool as they were, and what the key meant among them.
    fn tell_pool(&self, pool: &PoolThen, key: AffinityKey) -> Value {
        let chooser = pool.chooser(&self.keys);
        let candidates = pool.candidates(&self.keys, key);
        let shares = chooser.as_ref().map(Chooser::shares).unwrap_or_default();
        let share = |server: ServerIndex| {
            let mut shares = shares.iter();
            let of = shares.find(|(of, _)| *of == server);
            of.map_or(0.0, |(_, share)| *share)
        };
        let members = pool.members.iter().map(|member| {
            let place = candidates.iter().position(|of| *of == member.index);
            json!({
                "name": &*member.name,
                "address": member.address.to_string(),
                "weight": member.weight,
                "priority": member.priority,
                "state": member.state.as_str(),
                "share": share(member.index),
                // 0 = the key's own, 1 = the next, were that down.
                "place": place,
            })
        });
        json!({
            "policy": pool.policy.as_str(),
            // Rendezvous has none.
            "entries": chooser.as_ref().and_then(|of| Some(of.table()?.len())),
            "takes_calls": chooser.is_some(),
            "servers": members.collect::<Vec<_>>(),
        })
    }

    /// What the pool of that name would say to the key now.
    fn tell_now(&self, then: &PoolThen, key: AffinityKey) -> Value {
        let plan = self.plan.load();
        let mut pools = plan.pools().iter();
        let chosen = pools
            .find(|pool| pool.name == then.name)
            .and_then(|pool| pool.select(key));
        json!({
            "plan": plan.version,
            "server": chosen.map(|server| self.server_name(server)),
        })
    }

    fn tell_pin(&self, call_id: CallIdHash, listener: ListenerIndex) -> Option<Value> {
        let pin = pin_of(&self.pins, call_id, listener, clock::now())?;
        Some(json!({
            "server": self.server_name(pin.server),
            "listener": self.listener_name(listener),
        }))
    }

    fn server_name(&self, server: ServerIndex) -> String {
        // A slot keeps its name for the life of the process.
        let name = self.registry.name(server);
        name.map_or_else(|| format!("#{}", server.0), str::to_owned)
    }

    fn listener_name(&self, listener: ListenerIndex) -> String {
        let listeners = &self.config.listeners;
        let of = listeners.get(usize::from(listener.0));
        of.map_or_else(|| format!("#{}", listener.0), |of| of.name.clone())
    }
}

fn address_then(then: Option<&PlanThen>, server: ServerIndex) -> Option<String> {
    let mut members = then?.pools.iter().flat_map(|pool| pool.members.iter());
    let member = members.find(|member| member.index == server)?;
    Some(member.address.to_string())
}
