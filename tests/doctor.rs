//! `viaduct doctor` over a real kernel: a veth pair in a namespace of its own.
//!
//! The last test holds the prediction against a start.
//!
//! Run as root: `cargo nextest run --test doctor --run-ignored all`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod common;

use std::process::Command;

use common::netns::{Namespace, ifindex};
use viaduct::bpf::{AttachMode, SinkHook, SinkProgram, SteerConfig, SteerProgram};
use viaduct::doctor::{Level, Report, Wanted, examine, gather};

fn look(interface: &str) -> Report {
    examine(&gather(interface).unwrap(), &Wanted::default())
}

fn level(report: &Report, name: &str) -> (Level, String) {
    let check = report.checks.iter().find(|check| check.name == name);
    let check = check.unwrap();
    (check.level, format!("{} {:?}", check.finding, check.fix))
}

/// Output of a command.
fn said(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_veth_is_what_ip_and_ethtool_say_it_is() {
    let namespace = Namespace::new();
    namespace.ip("link add near numrxqueues 2 numtxqueues 2 mtu 1400 type veth peer name far");
    namespace.ip("link set dev near up");
    namespace.ip("addr add 198.18.0.1/24 dev near");
    namespace.ip("addr add 2001:db8::1/64 dev near nodad");
    namespace.enter();
    let facts = gather("near").unwrap();
    assert_eq!(facts.driver.as_deref(), Some("veth"));
    assert_eq!(facts.mtu, 1400);
    for address in ["198.18.0.1", "2001:db8::1"] {
        let address = address.parse().unwrap();
        assert!(facts.addresses.contains(&address), "{:?}", facts.addresses);
    }
    assert_eq!(facts.channels.unwrap().receive, 2);
    assert_eq!(facts.xdp.program, None);
    let driver = facts.xdp.driver.unwrap();
    assert!(driver.native && driver.redirect && !driver.zero_copy);
    assert_eq!(facts.xsk, Ok(()));
    assert_eq!(facts.programs, Ok(true));
    // The kernel's names of offloads, as ethtool shows them.
    let (_, vlan) = facts
        .offloads
        .iter()
        .find(|(name, _)| name == "rx-vlan-hw-parse")
        .unwrap();
    assert!(vlan.on && !vlan.fixed);
    assert!(facts.vlans.is_empty());

    namespace.ip("link set dev near mtu 3600");
    assert_eq!(level(&look("near"), "mtu").0, Level::Warn);
    common::netns::command("sysctl -qw net.ipv4.conf.near.rp_filter=1");
    assert_eq!(level(&look("near"), "rp_filter").0, Level::Warn);
    common::netns::command("sysctl -qw net.ipv4.conf.near.rp_filter=2");
    assert_eq!(level(&look("near"), "rp_filter").0, Level::Ok);
}

#[test]
#[ignore = "needs root"]
fn another_program_is_found_and_its_fix_takes_it_off() {
    let namespace = Namespace::new();
    namespace.ip("link add near type veth peer name far");
    namespace.enter();
    assert_eq!(level(&look("near"), "program").0, Level::Ok);

    let sink = SinkProgram::load(&[[2, 0, 0, 0, 0, 1]]).unwrap();
    let link = sink
        .attach(ifindex("near"), SinkHook::Xdp(AttachMode::Native))
        .unwrap();
    let report = look("near");
    assert!(!report.is_fit());
    assert_eq!(report.datapath, "socket");
    let (found, text) = level(&report, "program");
    assert_eq!(found, Level::Fail);
    // ip-link(8) names the same program.
    let shown = said(&format!("ip -n {} -d link show near", namespace.name()));
    let id = shown.split("prog/xdp id ").nth(1).unwrap();
    let id = id.split_whitespace().next().unwrap();
    assert!(text.contains(&format!("id {id}, ")), "{text}\n{shown}");

    let check = report.checks.iter().find(|check| check.name == "program");
    let fix = check.unwrap().fix.clone().unwrap();
    assert!(fix.starts_with("bpftool link detach id "), "{fix}");
    common::netns::command(&fix);
    assert_eq!(level(&look("near"), "program").0, Level::Ok);
    drop(link);

    let steer = SteerProgram::load(&SteerConfig::new(vec![ifindex("near")], 1, 1)).unwrap();
    let link = steer.attach(ifindex("near"), AttachMode::Native).unwrap();
    let (found, text) = level(&look("near"), "program");
    assert_eq!(found, Level::Ok);
    assert!(text.contains("a viaduct serves here"), "{text}");
    drop(link);
}

#[test]
#[ignore = "needs root"]
fn without_capabilities_the_missing_ones_are_named() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let namespace = Namespace::new();
    namespace.ip("link add near type veth peer name far");
    namespace.enter();
    let before = capabilities(None).unwrap();
    let mut sets = before;
    sets.effective = CapabilitySet::empty();
    let mut limit = getrlimit(Resource::Memlock);
    limit.current = Some(1 << 20);
    setrlimit(Resource::Memlock, limit).unwrap();
    set_capabilities(None, sets).unwrap();
    let report = look("near");
    set_capabilities(None, before).unwrap();
    for name in ["capabilities", "memlock"] {
        assert_eq!(level(&report, name).0, Level::Fail, "{name}\n{report}");
    }
    assert_eq!(report.datapath, "socket");
}

/// The data path that `viaduct run` gets in a namespace, by its log.
fn obtained(namespace: &Namespace, config: &std::path::Path) -> String {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace.name()])
        .args([env!("CARGO_BIN_EXE_viaduct"), "run", "--config"])
        .arg(config)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    for line in lines.map_while(Result::ok) {
        let serves = line.contains("serving");
        said.push(line);
        if serves {
            break;
        }
    }
    // `ip netns exec` becomes the program: this ends it.
    let _ended = child.kill();
    let _reaped = child.wait();
    let last = said.last().unwrap();
    let datapath = last.split("datapath=").nth(1);
    let datapath = datapath.unwrap_or_else(|| panic!("viaduct ended: {said:?}"));
    let word = datapath.split_whitespace().next().unwrap();
    word.trim_matches('"').to_owned()
}

#[test]
#[ignore = "needs root"]
fn what_is_expected_is_what_a_start_gets() {
    let namespace = Namespace::new();
    namespace.ip("link add near type veth peer name far");
    namespace.ip("addr add 198.18.0.1/24 dev near");
    namespace.ip("link set dev near up");
    namespace.ip("link set dev far up");
    namespace.enter();
    let folder = tempfile::tempdir().unwrap();
    let config = |mode: &str| {
        let file = folder.path().join(mode);
        let text = format!(
            "[secret]\nfile = \"{0}/secret\"\n[datapath]\nmode = \"{mode}\"\npins = 1024\n\
             [metrics]\naddress = \"127.0.0.1:0\"\n[control]\nsocket = \"{0}/control\"\n\
             [[listeners]]\nname = \"clients\"\naddress = \"198.18.0.1:5060\"\n\
             [[pools]]\nname = \"farm\"\n\
             servers = [{{ name = \"s1\", address = \"198.18.0.11:5060\" }}]\n",
            folder.path().display()
        );
        std::fs::write(&file, text).unwrap();
        file
    };
    let expected = |file: &std::path::Path| {
        let config = viaduct::config::Config::load(file).unwrap();
        let wanted = Wanted::new(&config, file.to_owned());
        let report = examine(&gather("near").unwrap(), &wanted);
        assert_eq!(level(&report, "listeners").0, Level::Ok);
        report.datapath
    };
    for (mode, datapath) in [
        ("auto", "xdp-native-copy"),
        ("generic", "xdp-generic-copy"),
        ("socket", "socket"),
    ] {
        let file = config(mode);
        if mode != "socket" {
            assert_eq!(expected(&file), datapath);
        }
        assert_eq!(obtained(&namespace, &file), datapath);
    }
    let sink = SinkProgram::load(&[[2, 0, 0, 0, 0, 1]]).unwrap();
    let link = sink
        .attach(ifindex("near"), SinkHook::Xdp(AttachMode::Native))
        .unwrap();
    let file = config("auto");
    assert_eq!(expected(&file), "socket");
    assert_eq!(obtained(&namespace, &file), "socket");
    drop(link);
}
