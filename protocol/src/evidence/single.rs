//! Evidence for one act by itself: any line of a statement.

use serde::{Deserialize, Serialize};

use super::{ActPart, Checked, EvidenceError, Verdict};
use crate::act::{Act, Author};
use crate::keys::PublicKey;

/// One act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActEvidence {
    /// The key that signed it; none for the hub's own acts.
    pub key: Option<PublicKey>,
    /// The act.
    pub part: ActPart,
}

impl ActEvidence {
    pub(super) fn check(&self, checked: &Checked<'_>) -> Result<Verdict, EvidenceError> {
        let part = &self.part;
        let author = part.act.author();
        let expected = match author {
            Author::Hub => None,
            Author::Identity => Some(checked.hub.key()),
            Author::Account(account) => Some(account.key()),
            Author::Operator(key) => Some(key),
            _ => self.key,
        };
        if expected != self.key || self.key.is_none() != (author == Author::Hub) {
            return Err(EvidenceError::Signature("act"));
        }
        let keys: &[PublicKey] = self.key.as_slice();
        checked.act(part, keys, "act")?;
        let mut verdict = Verdict::new("act", part.commit);
        let kind = part.act.tag().name().trim_start_matches("weir/");
        verdict.fact("act", kind);
        verdict.fact("digest", part.act.digest(checked.hub));
        describe(&part.act, &mut verdict);
        verdict
            .proven(format!("The hub took exactly this act in commit {}, as item {}.", part.commit, part.path.index));
        match (self.key, author) {
            (None, _) => verdict.open("Why the hub did it: it is an act of its own."),
            (Some(key), Author::Identity | Author::Account(_) | Author::Operator(_)) => {
                verdict.proven(format!("Its author's key {key} signed it."));
            }
            (Some(key), _) => {
                verdict.proven(format!("The key {key} signed it."));
                verdict.open("Whose key that is: evidence of the channel or payment shows it.");
            }
        }
        Ok(verdict)
    }
}

fn describe(act: &Act, verdict: &mut Verdict) {
    match act {
        Act::Deposit(act) => {
            verdict.fact("amount", format!("{} {}", act.amount, act.currency));
            verdict.fact("account", act.account.map_or_else(|| "none: suspense".to_owned(), |id| id.to_string()));
            verdict.fact("bank reference", &act.bank_reference);
        }
        Act::Outcome(act) => {
            verdict.fact("amount", format!("{} {}", act.amount, act.currency));
            verdict.fact("account", act.account);
            verdict.fact("end to end id", super::end_to_end_id(act.window, &act.account));
        }
        Act::Cutoff(act) => verdict.fact("window", act.window),
        Act::Plan(act) => {
            verdict.fact("window", act.window);
            verdict.fact("total", format!("{} {}", act.total, act.currency));
        }
        _ => {}
    }
}
