//! What changed between two messages, line by line.

/// Cells of the comparison at most; beyond, everything in between counts as changed.
const CELLS_MAX: usize = 1 << 18;

/// Lines that went (`-`) and came (`+`), in the order of the outgoing message.
pub(super) fn difference(before: &[u8], after: &[u8]) -> Vec<(char, String)> {
    let (old, new) = (lines(before), lines(after));
    let same = |pair: &(&&[u8], &&[u8])| pair.0 == pair.1;
    let head = old.iter().zip(&new).take_while(same).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(same)
        .count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let gone = |line: &&[u8]| ('-', shown(line));
    let come = |line: &&[u8]| ('+', shown(line));
    if old.len().saturating_mul(new.len()) > CELLS_MAX {
        return old.iter().map(gone).chain(new.iter().map(come)).collect();
    }
    // The pairing of lines, in order, that is worth the most: from the end.
    let width = new.len() + 1;
    let mut worth = vec![0_u32; (old.len() + 1) * width];
    for row in (0..old.len()).rev() {
        for column in (0..new.len()).rev() {
            let paired = likeness(old[row], new[column]) + worth[(row + 1) * width + column + 1];
            let apart = worth[(row + 1) * width + column].max(worth[row * width + column + 1]);
            worth[row * width + column] = paired.max(apart);
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut changes = Vec::new();
    while row < old.len() || column < new.len() {
        if row == old.len() {
            changes.push(come(&new[column]));
            column += 1;
            continue;
        }
        if column == new.len() {
            changes.push(gone(&old[row]));
            row += 1;
            continue;
        }
        let like = likeness(old[row], new[column]);
        let here = worth[row * width + column];
        if like > 0 && here == like + worth[(row + 1) * width + column + 1] {
            if old[row] != new[column] {
                changes.extend([gone(&old[row]), come(&new[column])]);
            }
            (row, column) = (row + 1, column + 1);
        } else if here == worth[row * width + column + 1] {
            changes.push(come(&new[column]));
            column += 1;
        } else {
            changes.push(gone(&old[row]));
            row += 1;
        }
    }
    changes
}

/// How much two lines are one: the same, one that has grown, two of a header field.
fn likeness(old: &[u8], new: &[u8]) -> u32 {
    let name = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some(line[..colon].to_ascii_lowercase())
    };
    if old == new {
        8
    } else if !old.is_empty() && new.starts_with(old) {
        4
    } else {
        u32::from(name(old).is_some() && name(old) == name(new))
    }
}

fn lines(message: &[u8]) -> Vec<&[u8]> {
    let without_end = message.strip_suffix(b"\r\n").unwrap_or(message);
    without_end
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect()
}

/// Bytes for a terminal: what does not print is replaced.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let printable = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '.',
        c => c,
    };
    text.chars().map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(before: &str, after: &str) -> Vec<String> {
        let changes = difference(before.as_bytes(), after.as_bytes());
        changes
            .iter()
            .map(|(sign, line)| format!("{sign}{line}"))
            .collect()
    }

    #[test]
    fn inserted_removed_and_changed_lines_are_told() {
        assert_eq!(of("a\r\nb\r\n\r\n", "a\r\nb\r\n\r\n"), Vec::<String>::new());
        assert_eq!(of("a\r\nb\r\n", "a\r\nx\r\nb\r\n"), ["+x"]);
        assert_eq!(of("a\r\nx\r\nb\r\n", "a\r\nb\r\n"), ["-x"]);
        assert_eq!(
            of(
                "s\r\nv1\r\nm: 70\r\nf\r\n",
                "s\r\nv0\r\nv1\r\nm: 69\r\nf\r\n"
            ),
            ["+v0", "-m: 70", "+m: 69"]
        );
    }

    #[test]
    fn a_message_cannot_write_to_the_terminal() {
        assert_eq!(shown(b"a\x1b[2Jb\tc\xff"), "a.[2Jb c\u{fffd}");
    }

    #[test]
    fn long_messages_are_compared_in_bounded_memory() {
        let many =
            |first: u32| -> String { (0..3000).map(|n| format!("{}\r\n", first + n)).collect() };
        assert_eq!(of(&many(0), &many(10_000)).len(), 6000);
    }
}
