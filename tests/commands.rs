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
fn explain_reads_a_file_or_standard_input_and_says_which_secret_it_had() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 5060, &[1, 2, 3]);
    let file = write(&folder, "config", &config);
    let message = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/rfc3665/3.1-F01.sip"
    );
    let with = |config: &Path, message: &str| {
        let mut child = Command::new(VIADUCT)
            .args(["explain", "--from", "127.0.0.1:5070", "--json", "--config"])
            .arg(config)
            .arg(message)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let invite = fs::read(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/rfc3665/3.1-F01.sip"
        ));
        let _closed_if_unread = stdin.write_all(&invite.unwrap());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let from_file = with(&file, message);
    assert_eq!(from_file, with(&file, "-"));
    assert_eq!(from_file["outcome"], "request forwarded");
    assert_eq!(from_file["secret"][0], "that of the configuration");
    assert!(
        from_file["sent"]["to"]
            .as_str()
            .unwrap()
            .starts_with("127.0.1.")
    );

    let absent = folder.path().join("absent");
    let hex = format!("hex = \"{SECRET}\"");
    let without = config.replace(&hex, &format!("file = \"{}\"", absent.display()));
    let stand_in = with(&write(&folder, "without", &without), message);
    let secret = stand_in["secret"][0].as_str().unwrap();
    assert!(secret.starts_with("a stand-in"), "{secret}");
    assert!(!absent.exists());

    let output = viaduct(&[
        "explain",
        "--config",
        file.to_str().unwrap(),
        "/no/such/file",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("/no/such/file"));
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
