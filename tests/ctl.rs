//! `viaduct ctl` as an operator has it: a running viaduct on loopback sockets, its servers, and
//! calls that show where new ones go and where old ones stay.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use viaduct::admin::Command;
use viaduct::admin::client::Session;

const VIADUCT: &str = env!("CARGO_BIN_EXE_viaduct");
const SECRET: &str = "0123456789abcdef00112233445566778899aabbccddeeff0123456789abcdef";

/// A running viaduct, its servers, and a client.
struct Lab {
    folder: TempDir,
    viaduct: Child,
    listener: SocketAddr,
    servers: Vec<(String, UdpSocket)>,
    client: UdpSocket,
    /// Methods with a transaction.
    stateful: &'static str,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ended_already = self.viaduct.kill();
        let _status = self.viaduct.wait();
    }
}

fn free() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test waits for processes")]
fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Lab {
    /// With `count` servers, the file naming the first `named` of them.
    fn new(count: u8, named: usize, extra: &str) -> Self {
        Self::with(count, named, extra, "[]")
    }

    fn with(count: u8, named: usize, extra: &str, stateful: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = |number: u8| {
            let socket = UdpSocket::bind(format!("127.0.1.{number}:0")).unwrap();
            let timeout = Some(Duration::from_millis(1));
            socket.set_read_timeout(timeout).unwrap();
            (format!("s{number}"), socket)
        };
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut lab = Self {
            listener: free(),
            viaduct: Process::new("true").spawn().unwrap(),
            servers: (1..=count).map(server).collect(),
            client,
            folder,
            stateful,
        };
        lab.write(named, "", extra);
        lab.viaduct = Process::new(VIADUCT)
            .args(["run", "--config"])
            .arg(lab.folder.path().join("viaduct.toml"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("viaduct does not serve", || {
            let mut session = Session::new(&lab.socket()).ok()?;
            session.ask(&Command::List { pool: None }).ok()
        });
        lab
    }

    /// Writes the file: the first `named` servers, `member` added to the first one's entry.
    fn write(&self, named: usize, member: &str, extra: &str) {
        let servers: Vec<String> = self.servers[..named]
            .iter()
            .enumerate()
            .map(|(at, (name, socket))| {
                let member = if at == 0 { member } else { "" };
                let address = socket.local_addr().unwrap();
                format!("{{ name = \"{name}\", address = \"{address}\"{member} }}")
            })
            .collect();
        let text = format!(
            "[secret]\nhex = \"{SECRET}\"\n[datapath]\nmode = \"socket\"\npins = 65536\n\
             [workers]\ncount = 2\n[metrics]\nenabled = false\n\
             [control]\nsocket = \"{}\"\n\
             [[listeners]]\nname = \"clients\"\naddress = \"{}\"\nstateful = {}\n\
             [[pools]]\nname = \"farm\"\nservers = [{}]\n{extra}",
            self.socket().display(),
            self.listener,
            self.stateful,
            servers.join(", ")
        );
        std::fs::write(self.folder.path().join("viaduct.toml"), text).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        Process::new(VIADUCT)
            .arg("ctl")
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .output()
            .unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{error}");
        said
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// What `list` says of a server.
    fn server(&self, name: &str) -> Value {
        let list = self.done(&["list", "--json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let mut servers = list["pools"][0]["servers"].as_array().unwrap().iter();
        let found = servers.find(|server| server["name"] == name);
        found.cloned().unwrap_or(Value::Null)
    }

    fn plan(&self) -> u64 {
        let list = self.done(&["list", "--json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        list["plan"].as_u64().unwrap()
    }

    fn reload(&self) {
        let before = self.plan();
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.viaduct.id()).unwrap());
        rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::HUP).unwrap();
        wait_for("the reload was refused", || {
            (self.plan() > before).then_some(())
        });
    }

    fn request(&self, method: &str, call_id: &str) -> Vec<u8> {
        format!(
            "{method} sip:service@lab.example SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{branch};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@lab.example>;tag=1\r\n\
             To: <sip:service@lab.example>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n\
             Content-Length: 0\r\n\r\n",
            branch = call_id.replace(['@', '"', '\\'], ""),
        )
        .into_bytes()
    }

    fn send(&self, method: &str, call_id: &str) {
        let request = self.request(method, call_id);
        self.client.send_to(&request, self.listener).unwrap();
    }

    /// Takes what servers have received: Call-ID to server.
    fn received(&self, into: &mut HashMap<String, String>) {
        let mut buffer = [0; 4000];
        for (name, socket) in &self.servers {
            while let Ok(len) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let call_id = text.lines().find_map(|line| line.strip_prefix("Call-ID: "));
                into.insert(call_id.unwrap().to_owned(), name.clone());
            }
        }
    }

    /// Sends new requests, and says which server got each.
    fn calls(&self, method: &str, call_ids: &[String]) -> HashMap<String, String> {
        let mut went = HashMap::new();
        // No more at once than a socket's buffer holds; loopback loses nothing else.
        for some in call_ids.chunks(50) {
            for call_id in some {
                self.send(method, call_id);
            }
            let wanted = went.len() + some.len();
            wait_for("a request did not arrive", || {
                self.received(&mut went);
                (went.len() >= wanted).then_some(())
            });
        }
        went
    }

    /// How many of `count` new calls each server gets.
    fn shares(&self, label: &str, count: usize) -> HashMap<String, usize> {
        let call_ids: Vec<String> = (0..count).map(|n| format!("{label}-{n}@x")).collect();
        let mut shares = HashMap::new();
        for server in self.calls("OPTIONS", &call_ids).into_values() {
            *shares.entry(server).or_default() += 1;
        }
        shares
    }
}

#[test]
fn a_drain_moves_new_calls_keeps_old_ones_and_ends_at_its_deadline() {
    let lab = Lab::new(3, 3, "");
    let call_ids: Vec<String> = (0..60).map(|n| format!("old-{n}@x")).collect();
    let old = lab.calls("INVITE", &call_ids);
    assert!(old.values().any(|server| server == "s1"));

    // Without a transaction calls are not counted: a drain without an end is refused.
    let error = lab.refused(&["drain", "s1"]);
    assert!(error.contains("--deadline"), "{error}");
    assert_eq!(lab.server("s1")["state"], "active");
    let said = lab.done(&["drain", "farm/s1", "--deadline", "3s"]);
    assert!(said.starts_with("farm/s1: draining"), "{said}");
    assert!(said.contains("s to the deadline"), "{said}");

    let new = lab.shares("new", 60);
    assert_eq!(new.get("s1"), None, "{new:?}");
    assert_eq!(new.values().sum::<usize>(), 60);
    // RFC 3261 §16.11: what belongs to a transaction under way goes where its beginning went.
    assert_eq!(lab.calls("INVITE", &call_ids), old);
    assert_eq!(lab.calls("CANCEL", &call_ids), old);

    wait_for("the drain does not end", || {
        (lab.server("s1")["state"] == "disabled").then_some(())
    });
    assert_eq!(lab.shares("after", 60).get("s1"), None);
    let said = lab.done(&["enable", "s1"]);
    assert!(said.starts_with("farm/s1: active"), "{said}");
    assert!(lab.shares("again", 60)["s1"] > 0);
}

#[test]
fn who_waits_for_a_drain_sees_its_end() {
    let lab = Lab::new(2, 2, "");
    let said = lab.done(&["drain", "s2", "--deadline", "1s", "--wait"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("farm/s2: draining"), "{said}");
    assert!(
        lines.last().unwrap().starts_with("farm/s2: disabled"),
        "{said}"
    );
    // Ended by hand meanwhile: no success.
    let waiting = Process::new(VIADUCT)
        .args([
            "ctl",
            "drain",
            "s1",
            "--deadline",
            "60s",
            "--wait",
            "--socket",
        ])
        .arg(lab.socket())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("no drain", || {
        (lab.server("s1")["state"] == "draining").then_some(())
    });
    lab.done(&["enable", "s1"]);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("is no longer drained, but enabled"),
        "{error}"
    );
}

#[test]
fn a_reload_keeps_what_the_operator_said_until_the_file_says_otherwise() {
    let lab = Lab::new(4, 3, "");
    lab.done(&["weight", "s1", "9"]);
    lab.done(&["disable", "s2"]);
    lab.done(&["remove", "s3"]);
    let s4 = lab.servers[3].1.local_addr().unwrap().to_string();
    let said = lab.done(&["add", "farm", "s4", &s4, "--weight", "2"]);
    assert!(said.starts_with("farm/s4: active"), "{said}");
    let error = lab.refused(&["add", "farm", "s3", &s4]);
    assert!(error.contains("`enable` brings it back"), "{error}");

    let check = || {
        let (s1, s2, s4) = (lab.server("s1"), lab.server("s2"), lab.server("s4"));
        assert_eq!(
            (&s1["weight"], &s1["weight_in_file"]),
            (&9.into(), &1.into())
        );
        assert_eq!(s2["state"], "disabled");
        assert_eq!(lab.server("s3")["state"], "removed");
        assert_eq!(
            (&s4["origin"], &s4["weight"]),
            (&"runtime".into(), &2.into())
        );
    };
    check();
    lab.reload();
    check();
    let shares = lab.shares("kept", 110);
    assert_eq!(
        (shares.get("s2"), shares.get("s3")),
        (None, None),
        "{shares:?}"
    );
    assert!(
        shares["s1"] > shares["s4"] && shares["s4"] > 0,
        "{shares:?}"
    );

    // The file changes the weight, and names the server that was added.
    lab.write(4, ", weight = 3", "");
    lab.reload();
    assert_eq!(lab.server("s1")["weight"], 3);
    let s4 = lab.server("s4");
    assert_eq!((&s4["origin"], &s4["weight"]), (&"file".into(), &1.into()));
    // Of these it says nothing new.
    assert_eq!(lab.server("s2")["state"], "disabled");
    assert_eq!(lab.server("s3")["state"], "removed");
    lab.done(&["enable", "s3"]);
    assert_eq!(lab.server("s3")["state"], "active");
    lab.done(&["weight", "s1", "8"]);
    lab.done(&["weight", "s1", "file"]);
    assert_eq!(lab.server("s1")["weight"], 3);
    // The list shows which of the two counts.
    lab.done(&["weight", "s1", "7"]);
    let list = lab.done(&["list"]);
    assert!(list.contains("7 (file: 3)"), "{list}");
}

/// What `ctl explain` says of 1,000 calls is what the data path did with them: before a reload,
/// behind it, and of the old ones still then.
#[test]
fn explanations_agree_with_the_data_path_before_and_after_a_reload() {
    let lab = Lab::new(5, 3, "");
    let call_ids = |label: &str| -> Vec<String> {
        (0..1000_u64)
            .map(|n| {
                format!(
                    "{label}{:x}@198.18.0.1",
                    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                )
            })
            .collect()
    };
    let mut session = Session::new(&lab.socket()).unwrap();
    let mut explained = |call_id: &str| -> Value {
        let asked = Command::Explain {
            call_id: call_id.to_owned(),
        };
        let answer = session.ask(&asked).unwrap();
        let decisions = answer["decisions"].as_array().unwrap();
        assert_eq!(decisions.len(), 1, "{call_id}");
        decisions[0].clone()
    };
    let mut agree = |went: &HashMap<String, String>, plan: u64, names: &[&str]| {
        for (call_id, server) in went {
            let decision = explained(call_id);
            assert_eq!(decision["server"], server.as_str(), "{call_id}");
            assert_eq!(decision["plan"], plan, "{call_id}");
            assert_eq!(decision["chosen_by"], "the pool's table");
            let servers = decision["table"]["servers"].as_array().unwrap();
            let then: Vec<&str> = servers
                .iter()
                .map(|of| of["name"].as_str().unwrap())
                .collect();
            assert_eq!(then, names, "{call_id}");
            // The table of then, made again, says the same.
            let mut of_key = servers.iter().filter(|of| of["place"] == 0);
            assert_eq!(of_key.next().unwrap()["name"], server.as_str(), "{call_id}");
            assert!(of_key.next().is_none());
        }
    };
    let before = lab.calls("OPTIONS", &call_ids("a"));
    assert_eq!(before.len(), 1000);
    agree(&before, 1, &["s1", "s2", "s3"]);

    lab.write(5, ", weight = 4", "");
    lab.reload();
    let plan = lab.plan();
    assert_eq!(plan, 2);
    let after = lab.calls("OPTIONS", &call_ids("b"));
    agree(&before, 1, &["s1", "s2", "s3"]);
    agree(&after, 2, &["s1", "s2", "s3", "s4", "s5"]);

    // What is known now differs from then for some, and both are said.
    lab.done(&["disable", "s2"]);
    let (call_id, _) = before.iter().find(|(_, server)| *server == "s2").unwrap();
    let said = lab.done(&["explain", call_id]);
    assert!(
        said.contains("chosen by    the pool's table: server s2 at 127.0.1.2:"),
        "{said}"
    );
    assert!(
        said.contains("decided      20") && said.contains("by plan 1"),
        "{said}"
    );
    let now = said.lines().find(|line| line.starts_with("now ")).unwrap();
    assert!(
        now.contains("the table of plan 3 says server") && !now.contains("s2"),
        "{now}"
    );
    let error = lab.refused(&["explain", "never-seen@x"]);
    assert!(
        error.contains("nothing is remembered of this Call-ID"),
        "{error}"
    );
}

/// A server's response to a request as it got it.
fn response(request: &str, status: u16) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {status} Whatever\r\n");
    for row in request.lines().skip(1) {
        let name = row.split(':').next().unwrap_or("");
        match name {
            "Via" | "From" | "Call-ID" | "CSeq" => text += &format!("{row}\r\n"),
            "To" => text += &format!("{row};tag=uas\r\n"),
            _ => {}
        }
    }
    (text + "Content-Length: 0\r\n\r\n").into_bytes()
}

#[test]
fn a_drain_without_a_deadline_ends_with_the_last_call_and_the_call_is_logged() {
    let log = tempfile::tempdir().unwrap();
    let file = log.path().join("calls.json");
    let extra = format!("[transactions]\ncall_log = \"{}\"\n", file.display());
    let lab = Lab::with(2, 2, &extra, "[\"INVITE\"]");
    lab.send("INVITE", "ringing@x");
    let mut buffer = [0; 4000];
    let (name, socket, request) = wait_for("the INVITE did not arrive", || {
        lab.servers.iter().find_map(|(name, socket)| {
            let len = socket.recv(&mut buffer).ok()?;
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            Some((name.clone(), socket, text))
        })
    });
    let answer = |status: u16| {
        let bytes = response(&request, status);
        socket.send_to(&bytes, lab.listener).unwrap();
    };
    answer(180);
    wait_for("it does not ring", || {
        (lab.server(&name)["transactions"] == 1).then_some(())
    });
    let said = lab.done(&["drain", &name]);
    assert!(said.contains("1 transactions left"), "{said}");
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(lab.server(&name)["state"], "draining");
    answer(486);
    wait_for("the drain does not end", || {
        (lab.server(&name)["state"] == "disabled").then_some(())
    });
    let line = wait_for("nothing is logged", || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.lines().next().map(str::to_owned)
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["call_id"], "ringing@x");
    assert_eq!(
        (&line["from"], &line["to"]),
        (&"a".into(), &"service".into())
    );
    assert_eq!(
        (&line["pool"], &line["server"]),
        (&"farm".into(), &name.as_str().into())
    );
    assert_eq!(
        (&line["status"], &line["end"]),
        (&486.into(), &"refused".into())
    );
    assert!(line["ringing_ms"].as_f64().unwrap() < line["final_ms"].as_f64().unwrap());
}

/// RFC 3261 §11: OPTIONS to ourselves is how others ask whether we want traffic.
#[test]
fn a_drained_node_says_so_and_serves_on() {
    let lab = Lab::new(2, 2, "");
    let options = |call_id: &str| {
        let own = format!("OPTIONS sip:{} SIP/2.0", lab.listener);
        let request = String::from_utf8(lab.request("OPTIONS", call_id)).unwrap();
        let request = request.replace("OPTIONS sip:service@lab.example SIP/2.0", &own);
        lab.client
            .send_to(request.as_bytes(), lab.listener)
            .unwrap();
        let mut buffer = [0; 2000];
        let len = lab.client.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..12.min(len)]).into_owned()
    };
    assert_eq!(options("well"), "SIP/2.0 200 ");
    assert_eq!(lab.done(&["node", "drain"]), "node 0: draining\n");
    assert_eq!(options("drained"), "SIP/2.0 503 ");
    assert_eq!(lab.shares("drained", 20).values().sum::<usize>(), 20);
    lab.reload();
    assert_eq!(options("reloaded"), "SIP/2.0 503 ");
    assert_eq!(lab.done(&["node", "enable"]), "node 0: enabled\n");
    assert_eq!(options("enabled"), "SIP/2.0 200 ");
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let lab = Lab::new(2, 2, "");
    let plan = lab.plan();
    let s1 = lab.servers[0].1.local_addr().unwrap().to_string();
    let listener = lab.listener.to_string();
    for (arguments, words) in [
        (
            &["drain", "s9"][..],
            "no server \"s9\"; there are farm/s1, farm/s2",
        ),
        (&["enable", "other/s1"], "no server \"other/s1\""),
        (&["list", "other"], "no pool \"other\"; there are farm"),
        (
            &["add", "other", "s3", "127.0.1.3:5060"],
            "no pool \"other\"",
        ),
        (
            &["add", "farm", "s1", "127.0.1.3:5060"],
            "there is a server of that name",
        ),
        (&["add", "farm", "s3", &s1], "is the address of farm/s1"),
        (&["add", "farm", "s3", &listener], "is one of our listeners"),
        (
            &["add", "farm", "s/3", "127.0.1.3:5060"],
            "is not 1 to 64 letters",
        ),
        (&["weight", "s1", "100000"], "is outside"),
    ] {
        let error = lab.refused(arguments);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    assert_eq!(lab.plan(), plan);
    // The last server of a pool stays.
    lab.done(&["remove", "s2"]);
    let error = lab.refused(&["remove", "s1"]);
    assert!(error.contains("the last server of pool farm"), "{error}");

    let socket = lab.socket();
    drop(lab);
    let output = Process::new(VIADUCT)
        .args(["ctl", "list", "--socket"])
        .arg(socket)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is viaduct running"));
}
