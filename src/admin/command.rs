//! What an operator can ask a running viaduct to do, as it stands on the control socket: one JSON
//! object a line.
//!
//! ```text
//! {"command":"drain","server":"farm/s1","deadline_seconds":600}
//! {"ok":true,"server":"s1","state":"draining",…}
//! {"command":"drain","server":"s9"}
//! {"ok":false,"error":"no server \"s9\"; there are s1, s2"}
//! ```

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Tell of every pool and server.
    List {
        /// This pool only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<String>,
    },
    /// A server gets no new calls; what it has goes on until it has none, or to the deadline. Then
    /// it is disabled.
    Drain {
        /// `pool/server`, or the server's name alone.
        server: String,
        /// Seconds after which it is disabled whatever it still has; absent = never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_seconds: Option<u64>,
    },
    /// A server gets what its health and weight allow; a removed one of the file is back.
    Enable {
        /// Which.
        server: String,
    },
    /// A server gets nothing but requests of its dialogs, at once.
    Disable {
        /// Which.
        server: String,
    },
    /// A server has another weight than the file's.
    Weight {
        /// Which.
        server: String,
        /// The weight; absent = the file's again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
    },
    /// A pool has one server more.
    Add {
        /// The pool.
        pool: String,
        /// The server's name.
        name: String,
        /// Where its SIP port is.
        address: SocketAddr,
        /// Its weight; absent = 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
    },
    /// A server is as if the file did not name it: calls that it has still find it.
    Remove {
        /// Which.
        server: String,
    },
    /// This node says, or no longer says, that it wants no traffic.
    Node {
        /// What it is to be.
        state: NodeState,
    },
    /// Why a call went where it went.
    Explain {
        /// Its Call-ID.
        call_id: String,
    },
}

/// Whether this node wants traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It answers OPTIONS to itself with 503; everything else goes on.
    Drain,
    /// It wants traffic.
    Enable,
}

/// What comes back: the fields of the answer, or why there is none.
pub type Reply = Result<Map<String, Value>, String>;

impl Command {
    /// From a line.
    ///
    /// # Errors
    /// What is wrong with it, in words for who wrote it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| format!("no command: {error}"))
    }

    /// As a line, with its end.
    pub fn line(&self) -> String {
        // Strings and numbers only: cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// A reply as a line, with its end.
pub(super) fn reply_line(reply: Reply) -> String {
    let mut line = Map::new();
    line.insert("ok".to_owned(), reply.is_ok().into());
    match reply {
        Ok(mut fields) => line.append(&mut fields),
        Err(error) => {
            line.insert("error".to_owned(), error.into());
        }
    }
    Value::Object(line).to_string() + "\n"
}

/// The reply of a line.
pub(super) fn parse_reply(line: &[u8]) -> Option<Reply> {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(line) else {
        return None;
    };
    match fields.remove("ok")?.as_bool()? {
        true => Some(Ok(fields)),
        false => Some(Err(fields.remove("error")?.as_str()?.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_are_written() {
        for (text, command) in [
            (r#"{"command":"list"}"#, Command::List { pool: None }),
            (
                r#"{"command":"drain","server":"farm/s1","deadline_seconds":600}"#,
                Command::Drain {
                    server: "farm/s1".to_owned(),
                    deadline_seconds: Some(600),
                },
            ),
            (
                r#"{"command":"weight","server":"s1"}"#,
                Command::Weight {
                    server: "s1".to_owned(),
                    weight: None,
                },
            ),
            (
                r#"{"command":"add","pool":"farm","name":"s4","address":"[2001:db8::4]:5060","weight":2}"#,
                Command::Add {
                    pool: "farm".to_owned(),
                    name: "s4".to_owned(),
                    address: "[2001:db8::4]:5060".parse().unwrap(),
                    weight: Some(2),
                },
            ),
            (
                r#"{"command":"node","state":"drain"}"#,
                Command::Node {
                    state: NodeState::Drain,
                },
            ),
            (
                r#"{"command":"explain","call_id":"a\"b@c"}"#,
                Command::Explain {
                    call_id: "a\"b@c".to_owned(),
                },
            ),
        ] {
            assert_eq!(Command::parse(text.as_bytes()).unwrap(), command);
            assert_eq!(command.line(), format!("{text}\n"));
        }
    }

    #[test]
    fn what_is_no_command_is_refused_in_words() {
        for (text, word) in [
            ("", "EOF"),
            ("drain s1", "expected"),
            ("[]", "no command"),
            ("{}", "command"),
            (r#"{"command":"reboot"}"#, "unknown variant `reboot`"),
            (r#"{"command":"drain"}"#, "server"),
            (r#"{"command":"drain","server":7}"#, "expected a string"),
            (
                r#"{"command":"drain","server":"s1","dead_line":7}"#,
                "unknown field `dead_line`",
            ),
            (r#"{"command":"list"} {}"#, "trailing"),
            (
                r#"{"command":"add","pool":"p","name":"n","address":"host"}"#,
                "socket address",
            ),
            ("\"\u{7f}", "no command"),
        ] {
            let error = Command::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(Command::parse(b"\xff\xfe").is_err());
    }

    #[test]
    fn replies_come_back() {
        let mut fields = Map::new();
        fields.insert("state".to_owned(), "draining".into());
        for reply in [Ok(fields), Err("no \"server\"\nof that name".to_owned())] {
            let line = reply_line(reply.clone());
            assert_eq!(line.find('\n'), Some(line.len() - 1));
            assert_eq!(parse_reply(line.as_bytes()), Some(reply));
        }
        for broken in ["", "{}", "[]", r#"{"ok":1}"#, r#"{"ok":false}"#] {
            assert_eq!(parse_reply(broken.as_bytes()), None);
        }
    }
}
