//! What goes to stdout: a table on a terminal; JSON when piped or asked for.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::Failure;
use crate::bank::timestamp;

/// Writes a command's result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printer {
    json: bool,
}

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        Self { json: json || !io::stdout().is_terminal() }
    }

    /// Prints a result: one JSON object, or what `show` makes of it.
    pub(super) fn print<T: Serialize>(self, result: &T, show: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        let mut text = if self.json { serde_json::to_string(result)? } else { show(result) };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.raw(text.as_bytes())
    }

    /// Prints bytes as they are, and flushes. A reader that has seen enough is no failure.
    #[expect(clippy::unused_self, reason = "stdout is the printer's")]
    pub(super) fn raw(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A line of talk on stderr.
pub(super) fn say(line: &str) {
    // Nobody listens: nothing is lost.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A table with a heading.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heading);
    table.add_rows(rows);
    trimmed(&table)
}

/// Names with their values.
pub(super) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.add_rows(facts.into_iter().map(|(name, value)| [name.to_owned(), value]));
    trimmed(&table)
}

fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// So many of a thing.
pub(super) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A time in UTC, as people read it.
pub(super) fn time(ms: u64) -> String {
    timestamp(ms).unwrap_or_else(|_| "never".into())
}

/// Has somebody type what is about to happen. Without a terminal, nobody can.
pub(super) fn typed(expected: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let error = anyhow::anyhow!("this moves money, and nobody is here to confirm it");
        return Err(Failure::usage(error)
            .hint(format!("`--dry-run` shows what would happen, `--confirm '{expected}'` does it")));
    }
    let _ = write!(io::stderr().lock(), "Type `{expected}` to do it: ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() == expected {
        Ok(expected.to_owned())
    } else {
        Err(anyhow::anyhow!("not confirmed; nothing was done").into())
    }
}

/// Asks on the terminal. Without a terminal, nobody can say yes.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    confirm_or(question, "`--dry-run` shows what would happen, `--yes` does it")
}

/// The same; `hint` says what to do where there is no terminal.
pub(super) fn confirm_or(question: &str, hint: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let error = anyhow::anyhow!("this moves money, and nobody is here to confirm it");
        return Err(Failure::usage(error).hint(hint));
    }
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(anyhow::anyhow!("not confirmed; nothing was done").into())
    }
}
