//! A statement as comma-separated values (RFC 4180): one table, a row for each thing that the page shows.

use super::{BalanceRow, Statement};
use crate::report::replay::day;

const HEADING: &str = "currency,date,kind,amount,moved,payments,commit,item,party,detail\r\n";

pub(super) fn write(statement: &Statement) -> String {
    let mut out = HEADING.to_owned();
    // There is no day before the first commit.
    let opens = if statement.after.commit == 0 { String::new() } else { day(statement.after.time_ms) };
    let closes = day(statement.through.time_ms);
    for section in &statement.currencies {
        let currency = section.currency.to_string();
        let mut row = |fields: [&str; 9]| {
            let fields: Vec<String> = core::iter::once(currency.as_str()).chain(fields).map(field).collect();
            out.push_str(&fields.join(","));
            out.push_str("\r\n");
        };
        let mut balance = |date: &str, kind: &str, balances: &BalanceRow| {
            row([date, kind, &balances.total.to_string(), "", "", "", "", "", ""]);
        };
        balance(&opens, "opening", &section.opening);
        for line in &section.lines {
            let (commit, item) = (line.commit.to_string(), line.item.to_string());
            let moved = line.moved.to_string();
            row([&day(line.time_ms), &line.kind, &line.amount, &moved, "", &commit, &item, "", &line.detail]);
        }
        for paid in &section.paid {
            let party = paid.payee.map_or_else(|| "others".to_owned(), |payee| payee.to_string());
            let commits = format!("commits {} to {}", paid.commits.0, paid.commits.1);
            row([&paid.day, "paid", &paid.amount, "", &paid.payments.to_string(), "", "", &party, &commits]);
        }
        for earned in &section.earned {
            let commits = format!("commits {} to {}", earned.commits.0, earned.commits.1);
            row([&earned.day, "earned", &earned.amount, "", &earned.payments.to_string(), "", "", "", &commits]);
        }
        row([&closes, "closing", &section.closing.total.to_string(), "", "", "", "", "", ""]);
        if let Some(payout) = &section.payout {
            row([&closes, "payout_of_window", &payout.amount.to_string(), "", "", "", "", "", &payout.end_to_end_id]);
            if !payout.later.is_zero() {
                let later = payout.later.to_string();
                row([&closes, "of_it_from_later_windows", &later, "", "", "", "", "", &payout.end_to_end_id]);
            }
        }
        row([&closes, "carry", &section.carry.to_string(), "", "", "", "", "", ""]);
    }
    out
}

/// A field; quoted where it must be. A text that a spreadsheet would take for a formula is defused.
fn field(text: &str) -> String {
    let is_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let defused = if !is_number && text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if defused.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", defused.replace('"', "\"\"")) } else { defused }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn field_is_quoted_and_no_formula() {
        assert_eq!(field("a,b \"c\""), "\"a,b \"\"c\"\"\"");
        assert_eq!(field("=1+1"), "'=1+1");
        assert_eq!(field("-0.05"), "-0.05");
        assert_eq!(field("-x"), "'-x");
        assert_eq!(field("plain"), "plain");
    }
}
