//! The metrics table: every name, type, label and help text of the page in one place.

use core::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Names, Page, Readings, SERVER_STATES};
use crate::metrics::{
    ANSWERS, Counter, EJECTION_CAUSES, HEALTHS, HealthMetrics, METHODS, STATUS_CLASSES,
    ServerHealthMetrics, WorkerMetrics,
};
use crate::verdict::DropReason;

/// The page as text.
pub(super) fn text(page: &Arc<Page>) -> String {
    let mut registry = Registry::with_prefix("viaduct");
    registry.register_collector(Box::new(Snapshot {
        page: Arc::clone(page),
    }));
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _infallible = text::encode(&mut text, &registry);
    text
}

struct Snapshot {
    page: Arc<Page>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

/// Writes one family after the other.
struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Families<'_> {
    fn family<'l, L: EncodeLabelSet + 'l>(
        &mut self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut descriptor = self
            .encoder
            .encode_descriptor(name, help, None, metric_type)?;
        for (labels, value) in values {
            let encoder = descriptor.encode_family(&labels)?;
            match metric_type {
                MetricType::Counter => ConstCounter::new(value).encode(encoder)?,
                // A gauge of prometheus-client is signed; ours stay far below.
                _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?,
            }
        }
        Ok(())
    }

    fn counter<'l, L: EncodeLabelSet + 'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, values)
    }

    fn gauge<'l, L: EncodeLabelSet + 'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, values)
    }
}

type Worker = (&'static str, String);

/// Name, help and counter of a family with one value a worker.
type WorkerFamily = (&'static str, &'static str, fn(&WorkerMetrics) -> &Counter);

/// Families with one value a worker.
const WORKER_FAMILIES: &[WorkerFamily] = &[
    ("xdp_in", "Frames received through AF_XDP.", |w| &w.xdp_in),
    ("xdp_out", "Frames handed to a TX ring.", |w| &w.xdp_out),
    (
        "kernel_in",
        "Datagrams received by a kernel socket, own ones that ICMP says did not arrive included.",
        |w| &w.kernel_in,
    ),
    ("kernel_out", "Datagrams sent by a kernel socket.", |w| {
        &w.kernel_out
    }),
    (
        "kernel_leak",
        "Kernel datagrams that XDP should have taken.",
        |w| &w.kernel_leak,
    ),
    ("originated", "Packets that a worker made itself.", |w| {
        &w.originated
    }),
    (
        "hand_over_in",
        "Messages received from another worker.",
        |w| &w.hand_over_in,
    ),
    (
        "absorbed",
        "Messages that were for us: of transactions, answers to our own requests.",
        |w| &w.absorbed,
    ),
    ("hand_over_out", "Messages given to another worker.", |w| {
        &w.hand_over_out
    }),
    ("punted", "Messages that left the in-place path.", |w| {
        &w.punted
    }),
    ("transactions_opened", "Transactions begun.", |w| {
        &w.transactions.opened
    }),
    (
        "transactions_closed",
        "Transactions over; begun less over are open.",
        |w| &w.transactions.closed,
    ),
    (
        "transactions_refused",
        "Requests refused because there was no room for their transaction.",
        |w| &w.transactions.refused,
    ),
    (
        "transactions_repeated",
        "Requests that were a retransmission of one with a transaction.",
        |w| &w.transactions.repeated,
    ),
    (
        "transactions_retransmitted",
        "Messages sent again because nothing came back.",
        |w| &w.transactions.retransmitted,
    ),
    (
        "transactions_hunted",
        "Requests sent to another server: one was silent, unreachable or refused.",
        |w| &w.transactions.hunted,
    ),
    ("transactions_cancelled", "CANCELs of our own.", |w| {
        &w.transactions.cancelled
    }),
    (
        "transactions_timed_out",
        "Requests that no server answered in time.",
        |w| &w.transactions.timed_out,
    ),
    (
        "overload_refused_calls",
        "New calls refused with 503: the worker is overloaded.",
        |w| &w.overload.calls,
    ),
    (
        "overload_refused_others",
        "Other new requests refused with 503: the worker is overloaded.",
        |w| &w.overload.others,
    ),
    (
        "overload_throttled",
        "New requests refused because their server asks for less (RFC 7339).",
        |w| &w.overload.throttled,
    ),
    (
        "overload_diverted",
        "New requests that went to another server because theirs asks for less (RFC 7339).",
        |w| &w.overload.diverted,
    ),
    ("stun_answers", "STUN Binding requests answered.", |w| {
        &w.stun_answers
    }),
    (
        "calls_expired",
        "Calls that count no more because their session ended without a BYE.",
        |w| &w.transactions.calls_expired,
    ),
    (
        "calls_evicted",
        "Calls that count no more because newer ones needed their place.",
        |w| &w.transactions.calls_evicted,
    ),
    ("pins_made", "Pins made.", |w| &w.pins_made),
    ("pins_evicted", "Pins pushed out of a full bucket.", |w| {
        &w.pins_evicted
    }),
    (
        "client_flows_moved",
        "Clients behind a NAT that moved in the middle of a dialog.",
        |w| &w.flows_moved,
    ),
    (
        "client_flows_evicted",
        "Moved clients forgotten because newer ones needed the place.",
        |w| &w.flows_evicted,
    ),
    (
        "icmp_unreachable",
        "ICMP errors saying that a datagram of ours did not arrive.",
        |w| &w.icmp.unreachable,
    ),
    (
        "icmp_ignored",
        "ICMP errors that say nothing of a failure, as TTL exceeded.",
        |w| &w.icmp.ignored,
    ),
    ("tx_kicks", "Wake-ups of a TX ring.", |w| &w.tx_kicks),
    (
        "tx_kicks_again",
        "Wake-ups that the kernel asks to repeat.",
        |w| &w.tx_kicks_again,
    ),
    (
        "tx_device_drops",
        "Frames that the device dropped after they counted as sent.",
        |w| &w.tx_device_drops,
    ),
    ("sleeps", "Times a worker went to sleep.", |w| &w.sleeps),
    (
        "xsk_rx_dropped",
        "AF_XDP frames dropped by the kernel, as too long.",
        |w| &w.xsk.rx_dropped,
    ),
    (
        "xsk_rx_ring_full",
        "AF_XDP frames dropped: RX ring full.",
        |w| &w.xsk.rx_ring_full,
    ),
    (
        "xsk_fill_ring_empty",
        "AF_XDP frames dropped: fill ring empty.",
        |w| &w.xsk.fill_ring_empty,
    ),
    (
        "xsk_rx_invalid",
        "Fill ring entries that were no chunk's address.",
        |w| &w.xsk.rx_invalid,
    ),
    (
        "xsk_tx_invalid",
        "TX ring entries that could not be sent.",
        |w| &w.xsk.tx_invalid,
    ),
];

/// Name, help and counter of a family with one value a server.
type ServerFamily = (
    &'static str,
    &'static str,
    fn(&WorkerMetrics, usize) -> &Counter,
);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let readings = (self.page.readings)();
        let mut families = Families { encoder };
        self.process(&mut families, &readings)?;
        families.gauge(
            "overload_level",
            "Thousandths of new calls with a transaction that a worker refuses now, 900 at the most.",
            self.per_worker(|w| &w.overload.level),
        )?;
        self.traffic(&mut families)?;
        self.farm(&mut families)?;
        steering(&mut families, &readings)
    }
}

impl Snapshot {
    fn per_worker<'a>(
        &'a self,
        counter: impl Fn(&WorkerMetrics) -> &Counter + 'a,
    ) -> impl Iterator<Item = ([Worker; 1], u64)> + 'a {
        let workers = self.page.workers.iter().enumerate();
        workers
            .map(move |(index, worker)| ([("worker", index.to_string())], counter(worker).value()))
    }

    fn sum(&self, counter: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
        self.page
            .workers
            .iter()
            .map(|worker| counter(worker).value())
            .sum()
    }

    fn process(&self, families: &mut Families<'_>, readings: &Readings) -> fmt::Result {
        let info = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("datapath", &readings.datapath),
        ];
        families.gauge(
            "build",
            "Version and data path obtained; always 1.",
            [(info, 1)],
        )?;
        let none: [(&str, &str); 0] = [];
        families.gauge(
            "workers",
            "Datapath workers.",
            [(none, self.page.workers.len() as u64)],
        )?;
        let version = readings.plan_version;
        families.gauge(
            "configuration_version",
            "Snapshots published so far.",
            [(none, version)],
        )?;
        let refused = readings.reloads_refused;
        families.counter(
            "reloads_refused",
            "Reloads refused; nothing changed.",
            [(none, refused)],
        )?;
        families.counter(
            "common_log_records",
            "Records written to the common log.",
            [(none, readings.common_log_records)],
        )?;
        families.counter(
            "common_log_lost",
            "Records of the common log that were lost: queue or disk full.",
            [(none, readings.common_log_lost)],
        )?;
        families.counter(
            "call_log_records",
            "Records written to the call log.",
            [(none, readings.call_log_records)],
        )?;
        families.counter(
            "call_log_lost",
            "Records of the call log that were lost: queue or disk full.",
            [(none, readings.call_log_lost)],
        )?;
        families.gauge(
            "node_draining",
            "1 while this node answers OPTIONS to itself with 503.",
            [(none, u64::from(readings.node_draining))],
        )?;
        let pins = readings
            .pins
            .iter()
            .map(|(phase, count)| ([("phase", *phase)], *count as u64));
        families.gauge("pins", "Call-IDs pinned to a server now, by phase.", pins)
    }

    fn traffic(&self, families: &mut Families<'_>) -> fmt::Result {
        for (name, help, counter) in WORKER_FAMILIES {
            families.counter(name, help, self.per_worker(*counter))?;
        }
        let reasons = DropReason::ALL.iter();
        let drops = reasons.map(|reason| {
            (
                [("reason", reason.as_str())],
                self.sum(|w| &w.drops[*reason as usize]),
            )
        });
        families.counter("drops", "Frames and messages dropped, by reason.", drops)?;
        let methods = METHODS.iter().enumerate();
        let requests = methods
            .map(|(index, method)| ([("method", *method)], self.sum(|w| &w.requests[index])));
        families.counter("requests", "Requests received, by method.", requests)?;
        let classes = STATUS_CLASSES.iter().enumerate();
        let responses =
            classes.map(|(index, class)| ([("class", *class)], self.sum(|w| &w.responses[index])));
        families.counter(
            "responses",
            "Responses received, by status class.",
            responses,
        )?;
        let codes = ANSWERS.iter().enumerate();
        let answers = codes.map(|(index, code)| {
            let code = if *code == 0 {
                "other".to_owned()
            } else {
                code.to_string()
            };
            ([("code", code)], self.sum(|w| &w.answers[index]))
        });
        families.counter("answers", "Answers of our own, by status code.", answers)
    }

    fn farm(&self, families: &mut Families<'_>) -> fmt::Result {
        let names = self.page.names.load();
        let listener = |index: usize, name: &str, in_: bool| {
            let value = self.sum(|w| {
                let listener = &w.listeners[index];
                if in_ {
                    &listener.messages_in
                } else {
                    &listener.messages_out
                }
            });
            let direction = if in_ { "in" } else { "out" };
            (
                [
                    ("listener", name.to_owned()),
                    ("direction", direction.to_owned()),
                ],
                value,
            )
        };
        let listeners = names
            .listeners
            .iter()
            .enumerate()
            .flat_map(|(index, name)| [listener(index, name, true), listener(index, name, false)]);
        families.counter("listener_messages", "Messages by listener.", listeners)?;

        let states = names.servers.iter().flat_map(|server| {
            SERVER_STATES.iter().map(|state| {
                let labels = [
                    ("pool", server.pool.clone()),
                    ("server", server.server.clone()),
                    ("state", (*state).to_owned()),
                ];
                (labels, u64::from(*state == server.state))
            })
        });
        families.gauge(
            "server_state",
            "What may be sent to a server: 1 for its state, 0 for the others.",
            states,
        )?;
        health(families, &names, &self.page.health)?;
        let counters: [ServerFamily; 4] = [
            ("server_requests", "Requests sent to a server.", |w, i| {
                &w.servers[i].requests_out
            }),
            (
                "server_selected",
                "Requests for which the table chose a server.",
                |w, i| &w.servers[i].selected,
            ),
            (
                "server_requests_in",
                "Requests received from a server.",
                |w, i| &w.servers[i].requests_in,
            ),
            (
                "server_unreachable",
                "Requests to a server that came back as unreachable.",
                |w, i| &w.servers[i].unreachable,
            ),
        ];
        for (name, help, counter) in counters {
            let values = names.servers.iter().map(|server| {
                let labels = [
                    ("pool", server.pool.clone()),
                    ("server", server.server.clone()),
                ];
                (
                    labels,
                    self.sum(|w| counter(w, usize::from(server.index.0))),
                )
            });
            families.counter(name, help, values)?;
        }
        let responses = names.servers.iter().flat_map(|server| {
            STATUS_CLASSES.iter().enumerate().map(|(class, label)| {
                let labels = [
                    ("pool", server.pool.clone()),
                    ("server", server.server.clone()),
                    ("class", (*label).to_owned()),
                ];
                let index = usize::from(server.index.0);
                (labels, self.sum(|w| &w.servers[index].responses[class]))
            })
        });
        families.counter(
            "server_responses",
            "Responses from a server, by class.",
            responses,
        )
    }
}

/// What health checks know and count.
fn health(families: &mut Families<'_>, names: &Names, health: &HealthMetrics) -> fmt::Result {
    let panics = names
        .pools
        .iter()
        .zip(&names.panics)
        .map(|(pool, in_panic)| {
            let labels = [("pool", pool.clone())];
            (labels, u64::from(*in_panic))
        });
    families.gauge(
        "pool_panic",
        "Whether servers count as up that their traffic has taken out.",
        panics,
    )?;
    let family = |label: &'static str, values: &'static [&'static str], of: Counters| {
        let watched = names.servers.iter().filter(|server| server.is_watched);
        watched.flat_map(move |server| {
            let counters = health.server(server.index);
            values.iter().enumerate().map(move |(number, value)| {
                let labels = [
                    ("pool", server.pool.clone()),
                    ("server", server.server.clone()),
                    (label, (*value).to_owned()),
                ];
                (labels, of(counters, number).value())
            })
        })
    };
    families.counter(
        "server_probes",
        "Probes of a server, by what became of them.",
        family(
            "result",
            &["accepted", "failed"],
            |of, number| match number {
                0 => &of.probes_accepted,
                _ => &of.probes_failed,
            },
        ),
    )?;
    families.counter(
        "server_transitions",
        "Changes of a server's health, by what it became.",
        family("to", &HEALTHS, |of, number| &of.transitions[number]),
    )?;
    families.counter(
        "server_ejections",
        "Times that its traffic took a server out, by cause.",
        family("cause", &EJECTION_CAUSES, |of, number| {
            &of.ejections[number]
        }),
    )
}

/// A counter of a server, by the number of its label's value.
type Counters = fn(&ServerHealthMetrics, usize) -> &Counter;

/// What the steering program counts.
fn steering(families: &mut Families<'_>, readings: &Readings) -> fmt::Result {
    let verdicts = readings
        .steering
        .iter()
        .map(|(verdict, count)| ([("verdict", *verdict)], *count));
    families.counter(
        "steering",
        "Packets seen by the XDP program, by verdict.",
        verdicts,
    )?;
    let chosen = readings
        .steered
        .iter()
        .map(|(by, count)| ([("by", *by)], *count));
    families.counter(
        "steered",
        "Packets by what chose their worker, where there are several.",
        chosen,
    )
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;

    use super::super::ServerName;
    use super::*;
    use crate::net::ServerIndex;

    #[test]
    fn the_page_shows_every_reason_and_disabled_servers_too() {
        let worker = Arc::new(WorkerMetrics::new());
        worker.xdp_in.add(7);
        worker.as_ref().drop(DropReason::UdpChecksum);
        worker.server(ServerIndex(3)).requests_out.add(5);
        let names = Names {
            pools: vec!["farm".into()],
            listeners: vec!["clients".into()],
            servers: vec![ServerName {
                index: ServerIndex(3),
                pool: "farm".into(),
                server: "s3".into(),
                state: "retired",
                is_watched: true,
            }],
            panics: vec![true],
        };
        let health = HealthMetrics::new();
        health.server(ServerIndex(3)).ejection(2);
        health.server(ServerIndex(3)).transition(2);
        let page = Arc::new(Page {
            workers: vec![worker],
            names: Arc::new(ArcSwap::from_pointee(names)),
            health: Arc::new(health),
            readings: Box::new(move || Readings {
                datapath: "xdp-native-copy".into(),
                steering: vec![("redirect", 9)],
                steered: vec![("call_id", 8), ("queue", 1)],
                ..Readings::default()
            }),
        });
        let text = page.text();
        for line in [
            "viaduct_xdp_in_total{worker=\"0\"} 7",
            "viaduct_drops_total{reason=\"udp_checksum\"} 1",
            "viaduct_drops_total{reason=\"truncated\"} 0",
            "viaduct_server_requests_total{pool=\"farm\",server=\"s3\"} 5",
            "viaduct_server_state{pool=\"farm\",server=\"s3\",state=\"retired\"} 1",
            "viaduct_server_state{pool=\"farm\",server=\"s3\",state=\"active\"} 0",
            "viaduct_pool_panic{pool=\"farm\"} 1",
            "viaduct_server_ejections_total{pool=\"farm\",server=\"s3\",cause=\"errors\"} 1",
            "viaduct_server_transitions_total{pool=\"farm\",server=\"s3\",to=\"down\"} 1",
            "viaduct_server_probes_total{pool=\"farm\",server=\"s3\",result=\"failed\"} 0",
            "viaduct_steering_total{verdict=\"redirect\"} 9",
            "viaduct_steered_total{by=\"call_id\"} 8",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        for reason in DropReason::ALL {
            assert!(text.contains(&format!("reason=\"{}\"", reason.as_str())));
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
