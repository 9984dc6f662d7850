//! Reads a TOML table key by key and collects every fault instead of stopping at the first.
//!
//! A [`Reader`] knows the path of its table, so that each fault names its key in full, and which
//! keys were asked for, so that [`Reader::finish`] can name the unknown ones.

use core::cell::RefCell;
use core::str::FromStr;

use toml::{Table, Value};

use super::error::Fault;

/// Faults found so far; shared by the readers of one file.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Notes a fault.
    pub(super) fn add(&self, key: impl Into<String>, value: impl ToString, reason: impl ToString) {
        self.0.borrow_mut().push(Fault {
            key: key.into(),
            value: value.to_string(),
            reason: reason.to_string(),
        });
    }

    /// All faults.
    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// One table of the file.
pub(super) struct Reader<'a> {
    table: Option<&'a Table>,
    path: String,
    faults: &'a Faults,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    /// The root table.
    pub(super) fn root(table: &'a Table, faults: &'a Faults) -> Self {
        Self {
            table: Some(table),
            path: String::new(),
            faults,
            known: RefCell::default(),
        }
    }

    /// Path of a key in this table.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes a fault of a key of this table.
    pub(super) fn fault(&self, key: &str, value: impl ToString, reason: impl ToString) {
        self.faults.add(self.path(key), value, reason);
    }

    fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(key);
        self.table?.get(key)
    }

    /// A sub-table; an absent one reads as empty.
    pub(super) fn table(&self, key: &'static str) -> Reader<'a> {
        let table = match self.value(key) {
            Some(Value::Table(table)) => Some(table),
            Some(other) => {
                self.fault(key, other, "is not a table");
                None
            }
            None => None,
        };
        Reader {
            table,
            path: self.path(key),
            faults: self.faults,
            known: RefCell::default(),
        }
    }

    /// An array of tables; absent reads as empty.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Reader<'a>> {
        let values: &[Value] = match self.value(key) {
            Some(Value::Array(values)) => values,
            Some(other) => {
                self.fault(key, other, "is not an array of tables");
                &[]
            }
            None => &[],
        };
        let reader = |(index, value): (usize, &'a Value)| {
            let path = format!("{}[{index}]", self.path(key));
            let Value::Table(table) = value else {
                self.faults.add(path, value, "is not a table");
                return None;
            };
            Some(Reader {
                table: Some(table),
                path,
                faults: self.faults,
                known: RefCell::default(),
            })
        };
        values.iter().enumerate().filter_map(reader).collect()
    }

    /// Whether the table is in the file.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the value of a key is a string, where other types are right too.
    pub(super) fn is_string(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(Value::is_str)
    }

    /// A string.
    pub(super) fn string(&self, key: &'static str) -> Option<&'a str> {
        match self.value(key)? {
            Value::String(text) => Some(text),
            other => {
                self.fault(key, other, "is not a string");
                None
            }
        }
    }

    /// A string that must be there.
    pub(super) fn required_string(&self, key: &'static str) -> Option<&'a str> {
        if self.table.is_some_and(|table| !table.contains_key(key)) {
            self.fault(key, "", "is missing");
        }
        self.string(key)
    }

    /// A string that parses as `T`; `expected` says what would be right.
    pub(super) fn parsed<T: FromStr>(&self, key: &'static str, expected: &str) -> Option<T> {
        let text = self.string(key)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.fault(key, format!("{text:?}"), format!("is not {expected}"));
        }
        value
    }

    /// A string out of a fixed set.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(key)?;
        let found = choices
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.fault(
                key,
                format!("{text:?}"),
                format!("is not one of {}", names.join(", ")),
            );
        }
        found
    }

    /// An integer within a range.
    pub(super) fn integer<T>(
        &self,
        key: &'static str,
        range: core::ops::RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + core::fmt::Display + Copy,
    {
        let value = self.value(key)?;
        let Value::Integer(number) = value else {
            self.fault(key, value, "is not an integer");
            return None;
        };
        match T::try_from(*number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let reason = format!("is outside {}..={}", range.start(), range.end());
                self.fault(key, number, reason);
                None
            }
        }
    }

    /// Seconds, whole or with a fraction.
    pub(super) fn seconds(
        &self,
        key: &'static str,
        range: core::ops::RangeInclusive<f64>,
    ) -> Option<core::time::Duration> {
        let value = self.value(key)?;
        let seconds = match value {
            Value::Float(seconds) => *seconds,
            #[expect(clippy::cast_precision_loss, reason = "the range is far below 2⁵²")]
            Value::Integer(seconds) => *seconds as f64,
            other => {
                self.fault(key, other, "is not a number of seconds");
                return None;
            }
        };
        if !range.contains(&seconds) {
            let (from, to) = (range.start(), range.end());
            self.fault(key, seconds, format!("is outside {from} to {to} seconds"));
            return None;
        }
        Some(core::time::Duration::from_secs_f64(seconds))
    }

    /// True or false.
    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            Value::Boolean(value) => Some(*value),
            other => {
                self.fault(key, other, "is not true or false");
                None
            }
        }
    }

    /// An array of strings that each parse as `T`; the bad ones are noted and left out.
    pub(super) fn list<T: FromStr>(&self, key: &'static str, expected: &str) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Value::Array(values) = value else {
            self.fault(key, value, "is not an array");
            return None;
        };
        let item = |(index, value): (usize, &Value)| {
            let parsed = value.as_str().and_then(|text| text.parse().ok());
            if parsed.is_none() {
                let path = format!("{}[{index}]", self.path(key));
                self.faults.add(path, value, format!("is not {expected}"));
            }
            parsed
        };
        Some(values.iter().enumerate().filter_map(item).collect())
    }

    /// An array of integers within a range.
    pub(super) fn integers(
        &self,
        key: &'static str,
        range: core::ops::RangeInclusive<usize>,
    ) -> Option<Vec<usize>> {
        let value = self.value(key)?;
        let Value::Array(values) = value else {
            self.fault(key, value, "is not an array");
            return None;
        };
        let item = |(index, value): (usize, &Value)| {
            let number = value
                .as_integer()
                .and_then(|number| usize::try_from(number).ok());
            let number = number.filter(|number| range.contains(number));
            if number.is_none() {
                let path = format!("{}[{index}]", self.path(key));
                let reason = format!("is not an integer in {}..={}", range.start(), range.end());
                self.faults.add(path, value, reason);
            }
            number
        };
        Some(values.iter().enumerate().filter_map(item).collect())
    }

    /// Notes every key that nothing asked for.
    pub(super) fn finish(self) {
        self.finish_ref();
    }

    /// [`Reader::finish`] for a reader that lives on.
    pub(super) fn finish_ref(&self) {
        let known = self.known.borrow();
        for (key, value) in self.table.into_iter().flatten() {
            if !known.contains(&key.as_str()) {
                let value = match value {
                    Value::Table(_) | Value::Array(_) => String::new(),
                    plain => plain.to_string(),
                };
                let reason = format!("is not a known key; known here: {}", known.join(", "));
                self.fault(key, value, reason);
            }
        }
    }
}
