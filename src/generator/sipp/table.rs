//! The table of `--inf`: a row for each call, fields between semicolons.
//!
//! The first line says how rows are taken: `SEQUENTIAL`, `RANDOM` or `USERS` (as `SEQUENTIAL` here).
//! A field may hold keywords of its own, but no other field.

use core::str::FromStr;

use super::error::ScenarioError;
use super::program::fields;
use super::text::{Names, Text};
use crate::limits::{SIPP_TABLE_FIELDS_MAX, SIPP_TABLE_LEN_MAX};

/// How rows are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Sequential,
    Random,
}

/// Rows of fields.
#[derive(Clone, Debug)]
pub struct Table {
    order: Order,
    rows: Vec<Vec<Text>>,
}

/// A field has no variables: it is read before any call.
struct NoNames;

impl Names for NoNames {
    fn variable(&mut self, _: &str) -> Result<usize, String> {
        Err("variables do not exist in a table".to_owned())
    }
}

impl Table {
    /// The row of a call; `random` is a number that looks it.
    pub(super) fn row(&self, serial: u64, random: u64) -> usize {
        let count = u64::try_from(self.rows.len()).unwrap_or(1).max(1);
        let place = match self.order {
            Order::Sequential => serial,
            Order::Random => random,
        };
        usize::try_from(place % count).unwrap_or(0)
    }

    pub(super) fn field(&self, row: usize, place: usize) -> Option<&Text> {
        self.rows.get(row)?.get(place)
    }

    /// Fields of the shortest row.
    pub(super) fn width(&self) -> usize {
        self.rows.iter().map(Vec::len).min().unwrap_or(0)
    }
}

impl FromStr for Table {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        if text.len() > SIPP_TABLE_LEN_MAX {
            let reason = format!("a table is longer than {SIPP_TABLE_LEN_MAX} bytes");
            return Err(ScenarioError::new(1, reason));
        }
        let mut lines = (1u32..)
            .zip(text.lines().map(str::trim))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let order = match lines.next() {
            Some((_, "SEQUENTIAL" | "USERS")) => Order::Sequential,
            Some((_, "RANDOM")) => Order::Random,
            Some((line, _)) => {
                let reason = "a table begins with SEQUENTIAL, RANDOM or USERS on a line of its own";
                return Err(ScenarioError::new(line, reason));
            }
            None => return Err(ScenarioError::new(1, "an empty table")),
        };
        let mut rows = Vec::new();
        for (line, text) in lines {
            let mut row = Vec::new();
            for field in text.split(';') {
                if row.len() >= SIPP_TABLE_FIELDS_MAX {
                    let reason = format!("more than {SIPP_TABLE_FIELDS_MAX} fields");
                    return Err(ScenarioError::new(line, reason));
                }
                let field = Text::line_of(field, line, &mut NoNames)?;
                if !fields(&field).is_empty() {
                    return Err(ScenarioError::new(line, "a field within a field"));
                }
                row.push(field);
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return Err(ScenarioError::new(1, "a table without a row"));
        }
        Ok(Self { order, rows })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_taken_in_turn_or_by_chance() {
        let table: Table = "SEQUENTIAL\n# who\n100;a\n\n101;b;c\n".parse().unwrap();
        assert_eq!(
            (table.row(0, 9), table.row(1, 9), table.row(2, 9)),
            (0, 1, 0)
        );
        assert_eq!(table.width(), 2);
        assert!(table.field(1, 2).is_some() && table.field(0, 2).is_none());
        let table: Table = "RANDOM\n1\n2\n3".parse().unwrap();
        assert_eq!(table.row(0, 5), 2);
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line) in [
            ("", 1),
            ("SEQUENTIAL", 1),
            ("\nPRINTF=4\n1", 2),
            ("RANDOM\nok\n[field1]", 3),
            ("RANDOM\n[$1]", 2),
            ("RANDOM\n[authentication username=[field0] password=x]", 2),
        ] {
            let error = text.parse::<Table>().err().map(|error| error.line);
            assert_eq!(error, Some(line), "{text:?}");
        }
        let wide = format!("USERS\n{}", ";".repeat(SIPP_TABLE_FIELDS_MAX - 1));
        assert_eq!(
            wide.parse::<Table>().unwrap().width(),
            SIPP_TABLE_FIELDS_MAX
        );
        assert!(format!("{wide};").parse::<Table>().is_err());
    }

    proptest! {
        #[test]
        fn no_table_makes_the_reader_panic(text in "(SEQUENTIAL|RANDOM)\n(\\PC|[;\\[\\]\n]|field0|authentication ){0,200}") {
            let _ = text.parse::<Table>();
        }
    }
}
