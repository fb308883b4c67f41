//! What goes to stdout: a table on a terminal; JSON when piped or asked for. And the talk on stderr.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::failure::Failure;

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
        self.line(result, show).map(drop)
    }

    /// The same for results that come one by one. `false`: the reader has seen enough and went away.
    pub(super) fn line<T: Serialize>(self, result: &T, show: impl FnOnce(&T) -> String) -> Result<bool, Failure> {
        let mut text = if self.json { serde_json::to_string(result)? } else { show(result) };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        raw(text.as_bytes())
    }
}

/// Prints bytes as they are, and flushes. `false`: the reader went away, which is no failure.
pub(super) fn raw(bytes: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A line of talk on stderr.
pub(super) fn say(line: &str) {
    // Nobody listens: nothing is lost.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A table with a heading; a sentence when there is nothing to show.
pub(super) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    nothing: &str,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heading);
    table.add_rows(rows);
    if table.is_empty() { nothing.to_owned() } else { trimmed(&table) }
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
    // One column of padding on the left comes with the table; ids are long enough without it.
    let lines: Vec<&str> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    lines.join("\n")
}

/// Asks on the terminal. Without a terminal, nobody can say yes.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let error = anyhow::anyhow!("this asks for a confirmation, and nobody is here to give it");
        return Err(Failure::usage(error).hint("`--yes` does it without asking"));
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
