//! The subcommands that look and change nothing, as an operator runs them.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const VIADUCT: &str = env!("CARGO_BIN_EXE_viaduct");
const SECRET: &str = "00112233445566778899aabbccddeeff102132435465768798a9bacbdcedfe0f";

fn viaduct(arguments: &[&str]) -> Output {
    Command::new(VIADUCT).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

/// A configuration over loopback sockets.
fn config(folder: &Path, port: u16, servers: &[u8]) -> String {
    let servers: Vec<String> = servers
        .iter()
        .map(|n| format!("{{ name = \"s{n}\", address = \"127.0.1.{n}:5060\" }}"))
        .collect();
    format!(
        "[secret]\nhex = \"{SECRET}\"\n[datapath]\nmode = \"socket\"\npins = 1024\n\
         [metrics]\naddress = \"127.0.0.1:0\"\n[control]\nsocket = \"{}\"\n\
         [[listeners]]\nname = \"clients\"\naddress = \"127.0.0.1:{port}\"\n\
         [[pools]]\nname = \"farm\"\nservers = [{}]\n",
        folder.join("control").display(),
        servers.join(", ")
    )
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    fs::write(&file, text).unwrap();
    file
}

/// A viaduct that serves, ended when dropped.
struct Running(Child);

impl Running {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(VIADUCT)
            .args(["run", "--config"])
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let running = Self(child);
        let mut said = Vec::new();
        for line in lines.map_while(Result::ok) {
            if line.contains("serving") {
                return running;
            }
            said.push(line);
        }
        panic!("viaduct ended: {said:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn check_against_a_file_says_what_moves() {
    let folder = tempfile::tempdir().unwrap();
    let old = write(&folder, "old", &config(folder.path(), 5060, &[1, 2, 3]));
    let new = write(&folder, "new", &config(folder.path(), 5060, &[1, 2, 3, 4]));
    let check = |new: &Path, old: &Path| {
        let (new, old) = (new.to_str().unwrap(), old.to_str().unwrap());
        viaduct(&["check", "--config", new, "--against", old])
    };
    let output = check(&new, &old);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for line in [
        "a reload would take it",
        "every request: 25.",
        "s4 gains: 0 % -> 25.00 %",
        "calls that ring stay at their server (pins), dialogs too (tokens)",
        "secret: that of the configuration",
    ] {
        assert!(said.contains(line), "{line}:\n{said}");
    }

    let restart = config(folder.path(), 5070, &[1, 2, 3]);
    let restart = write(&folder, "restart", &restart);
    let output = check(&restart, &old);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("listeners[0].address: cannot change while running"));
    assert!(said.contains("every request: 0 % of its new calls move"));
    assert!(said.contains("a restart forgets pins"), "{said}");

    let other = config(folder.path(), 5060, &[1, 2, 3]).replace("00112233", "ffeeddcc");
    let output = check(&write(&folder, "other", &other), &old);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("secret: the master secret cannot change"));
    assert!(said.contains("every request: 66."), "{said}");
}

#[test]
fn check_against_a_running_viaduct_asks_its_control_socket() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let old = write(&folder, "old", &config(folder.path(), port, &[1, 2]));
    let running = Running::start(&old);
    // The file may change meanwhile: what runs is asked.
    write(&folder, "old", "");
    let new = write(&folder, "new", &config(folder.path(), port, &[1]));
    let control = folder.path().join("control");
    let (new, control) = (new.to_str().unwrap(), control.to_str().unwrap());
    let output = viaduct(&["check", "--config", new, "--against", control]);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("s2 loses: 50.00 % -> 0 %; 50.00 % to s1"),
        "{said}"
    );
    assert!(said.contains("secrets in hex are not compared"), "{said}");
    drop(running);
    let output = viaduct(&["check", "--config", new, "--against", control]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("is viaduct running"),
        "{}",
        text(&output)
    );
}

#[test]
fn doctor_ends_with_one_where_xdp_is_not_to_be_had() {
    let output = viaduct(&["doctor", "lo"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(
        said.lines()
            .last()
            .unwrap()
            .starts_with("lo: expect socket;"),
        "{said}"
    );
    let output = viaduct(&["doctor", "lo", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["fit"], false);
    assert_eq!(report["datapath"], "socket");
    let output = viaduct(&["doctor", "no-such-if0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("no-such-if0"));
}
