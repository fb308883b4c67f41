//! An exchange as a sequence diagram in SVG, drawn here: no script is needed to see it.

use std::fmt::Write as _;

use weir_client::protocol::amount::Time;

use super::record::{Exchange, Shown};

/// Who takes part, from left to right.
const LANES: [&str; 4] = ["client", "gate", "upstream", "hub"];
/// Where their lines are. The drawing is as wide as a small telephone, so that its text is readable there.
const LANE_X: [u32; 4] = [34, 134, 234, 330];
const WIDTH: u32 = 360;
const TOP: u32 = 34;
const ARROW_HEIGHT: u32 = 38;
const NOTE_HEIGHT: u32 = 34;
/// Longest label, in characters.
const MAX_LABEL: usize = 58;

const CLIENT: usize = 0;
const GATE: usize = 1;
const UPSTREAM: usize = 2;
const HUB: usize = 3;

/// One line of a diagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    from: usize,
    to: usize,
    /// For the style, and for whoever looks for it: `ask`, `challenge`, `payment`, `receipt`, `credential`, `answer`, `draw`.
    pub(super) kind: &'static str,
    text: String,
}

fn step(from: usize, to: usize, kind: &'static str, text: String) -> Step {
    Step { from, to, kind, text }
}

/// What happened, in order, as far as it is known.
pub(super) fn steps(one: &Exchange) -> Vec<Step> {
    let mut steps = Vec::new();
    let asks = format!("{} {}", one.method, one.path);
    let refused = one.answer.is_none() && one.shown.is_some();
    if let Some(demand) = &one.demand {
        let what = if refused { format!("{asks} + a receipt that is used up") } else { asks.clone() };
        steps.push(step(CLIENT, GATE, "ask", what));
        let charge = &demand.request;
        let most = if charge.details.metered { "at most " } else { "" };
        let until = demand.expires.get(11..19).unwrap_or_default();
        let text = format!("402: {most}{} {}, to be paid until {until}", charge.amount, charge.currency);
        steps.push(step(GATE, CLIENT, "challenge", text));
    }
    let Some(answer) = &one.answer else { return steps };
    paid(one, &mut steps);
    let shows = match &one.shown {
        Some(Shown { receipt: Some(receipt), .. }) => format!("{asks} + receipt of commit {}", receipt.commit),
        Some(_) => format!("{asks} + a credential"),
        None => format!("{asks} + the cookie of what was paid"),
    };
    steps.push(step(CLIENT, GATE, "credential", shows));
    let Some(receipt) = &answer.receipt else {
        steps.push(step(GATE, CLIENT, "answer", format!("{}", answer.status)));
        return steps;
    };
    steps.push(step(GATE, GATE, "check", "the receipt is checked offline".to_owned()));
    steps.push(step(GATE, UPSTREAM, "ask", asks));
    steps.push(step(UPSTREAM, GATE, "answer", answer.status.to_string()));
    let most = if receipt.metered { "at most " } else { "" };
    let text = format!("{} + Payment-Receipt: {most}{} drawn", answer.status.as_u16(), receipt.drawn);
    steps.push(step(GATE, CLIENT, "answer", text));
    if let Some(end) = &one.end {
        let draw = match (&end.trailer, &end.balance) {
            (Some(trailer), _) => format!("drawn {}, left {} of {}", trailer.drawn, trailer.left, trailer.amount),
            (None, Some((paid, drawn, left))) => format!("drawn {drawn} in all, left {left} of {paid}"),
            (None, None) => "the balance is gone".to_owned(),
        };
        steps.push(step(GATE, GATE, "draw", draw));
    }
    steps
}

/// The payment, as far as the receipt tells it.
fn paid(one: &Exchange, steps: &mut Vec<Step>) {
    let Some(receipt) = one.shown.as_ref().and_then(|shown| Some((shown, shown.receipt.as_ref()?))) else {
        if let Some(receipt) = one.answer.as_ref().and_then(|answer| answer.receipt.as_ref()) {
            steps.push(step(CLIENT, HUB, "payment", format!("{} {} was paid", receipt.amount, receipt.currency)));
        }
        return;
    };
    let (shown, receipt) = receipt;
    if one.demand.is_none() {
        let text = format!("paid before: {} in commit {}", shown.amount, receipt.commit);
        steps.push(step(CLIENT, CLIENT, "receipt", text));
        return;
    }
    let reference = short(&shown.reference.to_string());
    steps.push(step(CLIENT, HUB, "payment", format!("pay {}, reference {reference}", shown.amount)));
    steps.push(step(HUB, CLIENT, "receipt", format!("receipt: commit {} at {}", receipt.commit, clock(receipt.time))));
}

/// The beginning of an id.
pub(super) fn short(text: &str) -> String {
    let begin: String = text.chars().take(10).collect();
    if begin.len() < text.len() { begin + "…" } else { begin }
}

/// A time of day in UTC.
pub(super) fn clock(time: Time) -> String {
    let (seconds, ms) = (time.0 / 1000, time.0 % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// A text as HTML, for elements and attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

fn lane(at: usize) -> u32 {
    LANE_X.get(at).copied().unwrap_or_default()
}

/// The drawing.
pub(super) fn svg(one: &Exchange) -> String {
    let steps = steps(one);
    let height_of = |step: &Step| if step.from == step.to { NOTE_HEIGHT } else { ARROW_HEIGHT };
    let height = TOP + steps.iter().map(height_of).sum::<u32>() + 10;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Exchange {}\">", one.number);
    for (name, x) in LANES.iter().zip(LANE_X) {
        let _ = write!(
            svg,
            "<line class=\"lane\" x1=\"{x}\" y1=\"24\" x2=\"{x}\" y2=\"{height}\"/>\
             <text class=\"who\" x=\"{x}\" y=\"16\">{name}</text>"
        );
    }
    let mut y = TOP;
    for step in &steps {
        draw(&mut svg, step, y);
        y += height_of(step);
    }
    svg.push_str("</svg>");
    svg
}

fn draw(svg: &mut String, step: &Step, y: u32) {
    let label: String = step.text.chars().take(MAX_LABEL).collect();
    let cut = if step.text.chars().nth(MAX_LABEL).is_some() { "…" } else { "" };
    let (from, to) = (lane(step.from), lane(step.to));
    // A text begins where it has room: most are longer than the way between two lines.
    let (x, anchor) = match (step.from.min(step.to), step.from.max(step.to)) {
        _ if from == to => (lane(CLIENT) + 4, "start"),
        (CLIENT, _) => (from.min(to) + 4, "start"),
        (_, HUB) => (WIDTH - 4, "end"),
        _ => (u32::midpoint(from, to), "middle"),
    };
    let kind = step.kind;
    let _ = write!(svg, "<g class=\"{kind}\"><text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">", y + 12);
    let _ = write!(svg, "{}{cut}</text>", escaped(&label));
    if from == to {
        let _ = write!(svg, "<circle cx=\"{from}\" cy=\"{}\" r=\"3.5\"/>", y + 20);
    } else {
        let (line, back) = (y + 20, if to > from { to - 7 } else { to + 7 });
        let _ = write!(
            svg,
            "<line x1=\"{from}\" y1=\"{line}\" x2=\"{to}\" y2=\"{line}\"/>\
             <polygon points=\"{to},{line} {back},{} {back},{}\"/>",
            line - 4,
            line + 4
        );
    }
    svg.push_str("</g>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_leave_its_place() {
        assert_eq!(escaped("<a b='\"&\u{1}>"), "&lt;a b=&#39;&quot;&amp;\u{fffd}&gt;");
        assert_eq!((short("0123456789ab"), short("01")), ("0123456789…".to_owned(), "01".to_owned()));
        assert_eq!(clock(Time(86_400_000 + 3_723_004)), "01:02:03.004");
    }
}
