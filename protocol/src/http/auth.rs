//! Lists of challenges as `WWW-Authenticate` carries them (RFC 9110 §11.2, §11.6.1): which parameters the challenges of one
//! scheme have, whatever stands beside them. Knows no scheme. Must not fail for what another scheme writes: `token68`, text
//! beyond ASCII, more than one space.

use std::collections::BTreeMap;

/// The parameters of one challenge, by name in small letters.
pub(super) type Params = BTreeMap<String, String>;

/// The challenges of a scheme, in order. `None` is one that cannot be read: no parameter, a doubled one, or broken text.
pub(super) fn challenges(value: &str, scheme: &str) -> Vec<Option<Params>> {
    let mut found: Vec<Option<Params>> = Vec::new();
    let mut ours = false;
    for element in elements(value) {
        let parameter = if let Some(parameter) = parameter(element) {
            Some(parameter)
        } else {
            // A comma separates challenges as it separates parameters: what is no parameter begins with a scheme.
            let (name, rest) = element.split_once(BLANK).unwrap_or((element, ""));
            if is_token(name) {
                ours = name.eq_ignore_ascii_case(scheme);
                if ours {
                    found.push(Some(Params::new()));
                }
            }
            parameter(rest.trim_start_matches(BLANK))
        };
        if let (true, Some(last)) = (ours, found.last_mut()) {
            *last = last.take().and_then(|params| with(params, parameter));
        }
    }
    found
}

const BLANK: [char; 2] = [' ', '\t'];

fn with(mut params: Params, parameter: Option<(String, String)>) -> Option<Params> {
    let (name, text) = parameter?;
    params.insert(name, text).is_none().then_some(params)
}

/// What commas outside of quotes separate, without blanks around it; empty elements count for nothing.
fn elements(value: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = value.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == ',' && !quoted
    });
    parts.map(|part| part.trim_matches(BLANK)).filter(|part| !part.is_empty())
}

/// `name = value` and nothing else. An unquoted value may be more than a token: others write base64 and times so.
fn parameter(element: &str) -> Option<(String, String)> {
    let (name, value) = element.split_once('=')?;
    let (name, value) = (name.trim_end_matches(BLANK), value.trim_start_matches(BLANK));
    let text = match value.strip_prefix('"') {
        Some(rest) => unquoted(rest)?,
        None => value.to_owned(),
    };
    let plain = value.starts_with('"')
        || !value.is_empty()
            && !value.starts_with('=')
            && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    (plain && is_token(name)).then(|| (name.to_ascii_lowercase(), text))
}

/// The text of a quoted string (RFC 9110 §5.6.4) after its first quote, when its last one ends it.
fn unquoted(rest: &str) -> Option<String> {
    let mut text = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        let c = match chars.next()? {
            '"' => return chars.next().is_none().then_some(text),
            '\\' => chars.next()?,
            c => c,
        };
        if c != '\t' && c.is_control() {
            return None;
        }
        text.push(c);
    }
}

/// Whether it is a token (RFC 9110 §5.6.2): the name of a scheme, a parameter or a header.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(value: &str) -> Vec<Option<Vec<String>>> {
        let pairs = |params: Params| params.into_iter().map(|(name, text)| format!("{name}={text}")).collect();
        challenges(value, "Payment").into_iter().map(|params| params.map(pairs)).collect()
    }

    fn of(pairs: &[&str]) -> Vec<String> {
        pairs.iter().map(|pair| (*pair).to_owned()).collect()
    }

    #[test]
    fn lists_of_challenges_are_split_whatever_stands_beside() {
        let a = || Some(of(&["a=1"]));
        let rows = [
            ("", vec![]),
            (" , ,", vec![]),
            ("Basic realm=\"x\"", vec![]),
            ("Payment a=1", vec![a()]),
            ("payment  a=\"1\"", vec![a()]),
            ("PAYMENT\ta = \"1\" ", vec![a()]),
            ("Payment A=1", vec![a()]),
            ("Payment a=1,Payment a=1", vec![a(), a()]),
            (", Payment a=1, , Payment a=1,", vec![a(), a()]),
            ("Negotiate, Payment a=1", vec![a()]),
            ("Negotiate YII/+==, Payment a=1", vec![a()]),
            ("Payment a=1, Negotiate YII=", vec![a()]),
            ("Payment a=1, Bearer a=2, a=3", vec![a()]),
            ("Bearer realm=\"caf\u{e9}, Payment a=2\", Payment a=1", vec![a()]),
            ("Basic realm=\"\\\", Payment a=2\", Payment a=1", vec![a()]),
            ("Digest payment=1, payment =\"2\", Payment a=1", vec![a()]),
            ("Payment a=1, b=\"x, y\"", vec![Some(of(&["a=1", "b=x, y"]))]),
            ("Payment a=\"\\\"\\\\\\u\"", vec![Some(of(&["a=\"\\u"]))]),
            ("Payment a=\"\u{2014}\"", vec![Some(of(&["a=\u{2014}"]))]),
            ("Payment a=\"\"", vec![Some(of(&["a="]))]),
            ("Payment a=2026-01-01T00:00:00Z, b=e30=", vec![Some(of(&["a=2026-01-01T00:00:00Z", "b=e30="]))]),
            // Broken ones.
            ("Payment", vec![None]),
            ("Payment, Payment a=1", vec![None, a()]),
            ("Payment abc, Payment a=1", vec![None, a()]),
            ("Payment abc==", vec![None]),
            ("Payment a=1, a=1", vec![None]),
            ("Payment a=1, A=2", vec![None]),
            ("Payment a=", vec![None]),
            ("Payment a=1 2", vec![None]),
            ("Payment a=1\"", vec![None]),
            ("Payment a=\"1", vec![None]),
            ("Payment a=\"1\\", vec![None]),
            ("Payment a=\"1\"2", vec![None]),
            ("Payment a=\"1\u{1}\"", vec![None]),
            ("Payment =1", vec![]),
            ("Payment a=1, {}=2", vec![None]),
        ];
        for (value, expected) in rows {
            assert_eq!(shown(value), expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_split_without_panic(value in "\\PC{0,80}", odd in "[Pp]ayment [a-c=\" ,\\\\\u{e9}]{0,60}") {
            let _ = challenges(&value, "Payment");
            let _ = challenges(&odd, "Payment");
        }

        #[test]
        fn a_quoted_text_comes_back_from_a_list(text in "[ -~\u{a1}-\u{2fff}]{0,40}", before in "[A-Za-z0-9+/]{1,20}={0,2}") {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let found = challenges(&format!("Negotiate {before}, Payment a=\"{escaped}\", Basic"), "Payment");
            let only = found.into_iter().next().unwrap().unwrap();
            prop_assert_eq!(only.get("a").unwrap(), &text);
        }
    }
}
