//! A statement as one page: no script, no request to anywhere, prints on A4. Everything that came from somebody is escaped.

use core::fmt::Write as _;

use weir_protocol::amount::Amount;

use super::{BalanceRow, Line, Section, Statement};
use crate::bank::timestamp;
use crate::engine::windows::PayoutState;

const STYLE: &str = include_str!("page.css");

pub(super) fn write(statement: &Statement) -> String {
    let mut page = Page(String::new());
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    // Even if something slipped through, nothing is loaded and nothing runs.
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>");
    page.text(&format!("Statement of window {}: {}", statement.window, statement.name));
    page.raw("</title>\n<style>\n");
    page.raw(STYLE);
    page.raw("</style>\n</head>\n<body>\n<main>\n");
    head(&mut page, statement);
    for section in &statement.currencies {
        show(&mut page, statement, section);
    }
    if statement.currencies.is_empty() {
        page.raw("<p class=\"note\">Nothing has happened on this account yet.</p>\n");
    }
    foot(&mut page, statement);
    page.raw("</main>\n</body>\n</html>\n");
    page.0
}

/// HTML under construction.
struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn text(&mut self, text: &str) {
        self.0.push_str(&escape(text));
    }

    fn element(&mut self, tag: &str, class: &str, text: &str) {
        // Writing to memory cannot fail.
        let _ = write!(self.0, "<{tag} class=\"{class}\">{}</{tag}>", escape(text));
    }
}

/// Text for between tags and inside quoted attributes. Control characters, which HTML does not know, become a mark.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Direction marks could make a reader see another order than there is.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

fn head(page: &mut Page, statement: &Statement) {
    page.raw("<header>\n<div>");
    page.element("p", "hub", &statement.hub_name);
    page.raw("<h1>Account statement</h1>");
    let state = if statement.open { " (still open: not final)" } else { "" };
    page.element("p", "window", &format!("Window {}{state}", statement.window));
    page.raw("</div>\n<dl>");
    let from = if statement.after.commit == 0 { "the beginning".to_owned() } else { when(statement.after.time_ms) };
    let facts = [
        ("Account holder", statement.name.clone()),
        ("Bank account", grouped(&statement.iban)),
        ("From", from),
        ("To", when(statement.through.time_ms)),
        ("Commits", format!("{} to {}", statement.after.commit + 1, statement.through.commit)),
    ];
    for (name, value) in facts {
        page.element("dt", "", name);
        page.element("dd", "", &value);
    }
    page.raw("</dl>\n</header>\n");
    page.raw("<p class=\"id\">Account ");
    page.element("code", "", &statement.account.to_string());
    page.raw("</p>\n");
}

fn show(page: &mut Page, statement: &Statement, section: &Section) {
    let currency = section.currency.to_string();
    page.raw("<section>\n");
    page.element("h2", "", &currency);
    summary(page, section, &currency);
    if !section.earned.is_empty() {
        heading(page, "Payments received, by day", &["Day", "Payments", "Commits", &currency]);
        for row in &section.earned {
            let commits = commits(row.commits);
            cells(page, &[&row.day, &row.payments.to_string(), &commits], &row.amount);
        }
        end(page);
        page.raw("<p class=\"note\">Receipts name no payer, so payments are added up by day.</p>\n");
    }
    if !section.paid.is_empty() {
        heading(page, "Payments made, by day and payee", &["Day", "Payee", "Payments", "Commits", &currency]);
        for row in &section.paid {
            let payee = row.payee.map_or_else(|| "others".to_owned(), |payee| payee.to_string());
            let commits = commits(row.commits);
            cells(page, &[&row.day, &payee, &row.payments.to_string(), &commits], &row.amount);
        }
        end(page);
    }
    if !section.lines.is_empty() {
        heading(page, "Everything else", &["Time", "What", "Detail", "Proof", &currency]);
        for line in &section.lines {
            let place = format!("{}:{}", line.commit, line.item);
            cells(page, &[&when(line.time_ms), &named(&line.kind), &line.detail, &place], &amount(line));
        }
        end(page);
        page.raw("<p class=\"note\">An amount in brackets only changed its place inside the account.</p>\n");
    }
    balances(page, section, &currency);
    payout(page, statement, section, &currency);
    page.raw("</section>\n");
}

/// Opening, the movements by kind, closing.
fn summary(page: &mut Page, section: &Section, currency: &str) {
    page.raw("<table class=\"summary\">\n<tbody>\n");
    sum(page, "sum", "Opening balance", &section.opening.total.to_string(), currency);
    let order = ["deposit", "earned", "refund_received", "paid", "refund_given", "fee", "payout", "payout_returned"];
    let known = order.iter().filter_map(|kind| section.totals.get_key_value(*kind));
    let others = section.totals.iter().filter(|(kind, _)| !order.contains(&kind.as_str()));
    for (kind, amount) in known.chain(others) {
        let many = match kind.as_str() {
            "deposit" => "Deposits".to_owned(),
            "earned" => "Payments received".to_owned(),
            "paid" => "Payments made".to_owned(),
            "refund_received" => "Refunds received".to_owned(),
            "refund_given" => "Refunds given".to_owned(),
            "fee" => "Fees".to_owned(),
            "payout" => "Payouts carried out".to_owned(),
            "payout_returned" => "Payouts that came back".to_owned(),
            kind => named(kind),
        };
        sum(page, "", &many, &with_sign(amount), currency);
    }
    sum(page, "sum", "Closing balance", &section.closing.total.to_string(), currency);
    page.raw("</tbody>\n</table>\n");
}

fn sum(page: &mut Page, class: &str, name: &str, amount: &str, currency: &str) {
    page.raw(&format!("<tr class=\"{class}\">"));
    page.element("th", "", name);
    page.element("td", "amount", &format!("{amount} {currency}"));
    page.raw("</tr>\n");
}

fn balances(page: &mut Page, section: &Section, currency: &str) {
    heading(page, "Where it is", &["", "Opening", "Closing"]);
    let (opening, closing): (&BalanceRow, &BalanceRow) = (&section.opening, &section.closing);
    let rows: [(&str, Amount, Amount); 8] = [
        ("available", opening.available, closing.available),
        ("locked in channels", opening.locked, closing.locked),
        ("earned in the open window", opening.earned, closing.earned),
        ("payable", opening.payable, closing.payable),
        ("marked for payout", opening.marked, closing.marked),
        ("on its way to the bank", opening.in_transit, closing.in_transit),
        ("by direct debit, not to be spent yet", opening.provisional, closing.provisional),
        ("in all", opening.total, closing.total),
    ];
    for (name, before, after) in rows {
        page.raw(if name == "in all" { "<tr class=\"sum\">" } else { "<tr>" });
        page.element("td", "", name);
        page.element("td", "amount", &format!("{before} {currency}"));
        page.element("td", "amount", &format!("{after} {currency}"));
        page.raw("</tr>\n");
    }
    end(page);
}

fn payout(page: &mut Page, statement: &Statement, section: &Section, currency: &str) {
    if statement.open {
        return;
    }
    page.raw("<p class=\"payout\">");
    match &section.payout {
        Some(payout) => {
            let state = match payout.state {
                PayoutState::Planned => "planned",
                PayoutState::Instructed => "on its way",
                PayoutState::Settled => "carried out by the bank",
                PayoutState::Returned => "refused or returned by the bank",
            };
            page.text(&format!("This window pays out {} {currency}", payout.amount));
            if !payout.later.is_zero() {
                page.text(&format!(", {} of which became payable in later windows", payout.later));
            }
            page.text(&format!(": {state}. End-to-end id "));
            page.element("code", "", &payout.end_to_end_id);
            page.raw(". ");
        }
        None => page.text("This window pays nothing out. "),
    }
    if !section.carry.is_zero() {
        page.text(&format!("{} {currency} are carried into the next one.", section.carry));
    }
    page.raw("</p>\n");
}

fn foot(page: &mut Page, statement: &Statement) {
    page.raw("<footer>\n<p>Opening balance and movements give the closing balance to the nano; this was checked when the \
              statement was made. A proof is the commit and the item in it: the hub gives evidence for each that anyone can \
              check offline (<code>weir evidence act COMMIT:ITEM</code>, <code>weir verify FILE</code>).</p>\n");
    page.raw("<p>Times are UTC. Hub ");
    page.element("code", "", &statement.hub.to_string());
    page.raw("</p>\n</footer>\n");
}

fn heading(page: &mut Page, title: &str, columns: &[&str]) {
    page.raw("<table>\n");
    page.element("caption", "", title);
    page.raw("<thead><tr>");
    for (place, column) in columns.iter().enumerate() {
        let is_amount = place + 1 == columns.len() || (columns.len() == 3 && place > 0);
        page.element("th", if is_amount { "amount" } else { "" }, column);
    }
    page.raw("</tr></thead>\n<tbody>\n");
}

fn cells(page: &mut Page, texts: &[&str], amount: &str) {
    page.raw("<tr>");
    for text in texts {
        page.element("td", if text.len() > 40 { "long" } else { "" }, text);
    }
    let shown = if amount.starts_with('(') { amount.to_owned() } else { with_sign(amount) };
    page.element("td", "amount", &shown);
    page.raw("</tr>\n");
}

fn end(page: &mut Page) {
    page.raw("</tbody>\n</table>\n");
}

fn amount(line: &Line) -> String {
    if line.amount == "0" { format!("({})", line.moved) } else { line.amount.clone() }
}

/// A movement with its sign, the minus as typographers set it.
fn with_sign(amount: &str) -> String {
    match amount.strip_prefix('-') {
        Some(amount) => format!("\u{2212}{amount}"),
        None if amount == "0" => amount.to_owned(),
        None => format!("+{amount}"),
    }
}

fn commits((first, last): (u64, u64)) -> String {
    if first == last { first.to_string() } else { format!("{first}\u{2013}{last}") }
}

/// A kind in words.
fn named(kind: &str) -> String {
    let words = kind.replace(['_', '-'], " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), letters.as_str()))
}

/// An IBAN in groups of four.
fn grouped(iban: &str) -> String {
    let letters: Vec<char> = iban.chars().collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

/// A time to the second: `2026-11-23 05:13:40`.
fn when(ms: u64) -> String {
    timestamp(ms)
        .map_or_else(|_| "never".to_owned(), |text| text.chars().take(19).collect::<String>().replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_leaves_nothing_that_a_browser_takes_for_markup() {
        let escaped = escape("<script>alert('x\"&')</script>\u{202e}\u{0}");
        assert_eq!(escaped, "&lt;script&gt;alert(&#39;x&quot;&amp;&#39;)&lt;/script&gt;\u{fffd}\u{fffd}");
        assert_eq!(escape("Zoë's Shop"), "Zoë&#39;s Shop");
    }

    #[test]
    fn texts_are_for_people() {
        assert_eq!(named("payout_returned"), "Payout returned");
        assert_eq!(grouped("DE89370400440532013000"), "DE89 3704 0044 0532 0130 00");
        assert_eq!(
            (with_sign("-0.05"), with_sign("1"), with_sign("0")),
            ("\u{2212}0.05".into(), "+1".into(), "0".into())
        );
    }
}
