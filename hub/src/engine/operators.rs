//! Operators: the keys whose word the hub's settlement needs. Who may add or end one is decided here.
//!
//! While fewer than two stand, whoever holds the machine adds and ends keys, as the hub's own act: somebody must begin,
//! and a hub whose operators lost their keys must not be stuck. It stands in the journal for everybody to see. From two
//! on, one operator ends a key at once, since a stolen one cannot wait; a new key needs two different operators, so that
//! none makes himself a second pair of eyes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_protocol::act::Operator;
use weir_protocol::hash::Hash;
use weir_protocol::keys::PublicKey;
use weir_protocol::reject::Reject;

use super::channel::{LastAct, Numbered, check_number};

/// From so many on, operators decide about operators.
pub const QUORUM: usize = 2;

/// Whether a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorState {
    /// Named by one operator; waits for another one.
    Named,
    /// It counts.
    Stands,
    /// It does not count any more.
    Revoked,
}

/// What is known of an operator's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// Whose it is, for people.
    pub name: String,
    /// Whether it counts.
    pub state: OperatorState,
    /// Who named it, while it waits.
    named_by: Option<PublicKey>,
    /// The last number taken from it.
    last: Option<LastAct>,
}

impl OperatorRecord {
    /// The last number taken from the key; 0 before the first.
    pub fn number(&self) -> u64 {
        self.last.map_or(0, |last| last.number)
    }
}

/// All keys that ever were operators'.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Operators {
    keys: BTreeMap<PublicKey, OperatorRecord>,
}

impl Operators {
    /// By key.
    pub fn iter(&self) -> impl Iterator<Item = (&PublicKey, &OperatorRecord)> {
        self.keys.iter()
    }

    /// One key.
    pub fn get(&self, key: &PublicKey) -> Option<&OperatorRecord> {
        self.keys.get(key)
    }

    /// Whose a key is, for people; also one that does not count any more. Empty where it never was an operator's.
    pub fn name(&self, key: &PublicKey) -> String {
        self.keys.get(key).map_or_else(String::new, |record| record.name.clone())
    }

    /// Whether a key counts.
    pub fn stands(&self, key: &PublicKey) -> bool {
        self.keys.get(key).is_some_and(|record| record.state == OperatorState::Stands)
    }

    /// How many keys count.
    pub fn standing(&self) -> usize {
        self.keys.values().filter(|record| record.state == OperatorState::Stands).count()
    }

    /// Judges who says something and its number. `alone`: whether the hub may say it by itself. Nothing is taken yet.
    pub fn check(&self, by: Option<PublicKey>, number: u64, digest: &Hash, alone: bool) -> Result<Numbered, Reject> {
        match by {
            None if !alone => Err(Reject::Unauthenticated),
            None if number != 0 => Err(Reject::Malformed),
            None => Ok(Numbered::New),
            Some(key) => {
                let record = self.keys.get(&key).ok_or(Reject::Unauthenticated)?;
                // What was taken gets its answer, also when the key ended with it.
                let numbered = check_number(record.last.as_ref(), number, digest);
                if numbered != Ok(Numbered::Again) && record.state != OperatorState::Stands {
                    return Err(Reject::Unauthenticated);
                }
                numbered
            }
        }
    }

    /// Takes the number of something that was judged and applied.
    pub fn take(&mut self, by: Option<PublicKey>, number: u64, digest: Hash) {
        if let Some(record) = by.and_then(|key| self.keys.get_mut(&key)) {
            record.last = Some(LastAct { number, digest });
        }
    }

    /// A key begins or ends to count. Its author and number have been judged.
    pub fn change(&mut self, act: &Operator) -> Result<(), Reject> {
        let known = self.keys.get(&act.key).map(|record| (record.state, record.named_by));
        if !act.stands {
            if !matches!(known, Some((OperatorState::Stands | OperatorState::Named, _))) {
                return Err(Reject::Stale);
            }
            if let Some(record) = self.keys.get_mut(&act.key) {
                record.state = OperatorState::Revoked;
                record.named_by = None;
            }
            return Ok(());
        }
        if act.key.parse().is_err() || act.name.is_empty() {
            return Err(Reject::Malformed);
        }
        let state = match (act.by, known) {
            (_, Some((OperatorState::Stands, _))) => return Err(Reject::Exists),
            (None, _) => OperatorState::Stands,
            (Some(by), Some((OperatorState::Named, named_by))) if named_by == Some(by) => return Err(Reject::Exists),
            // Who named it first must still count.
            (Some(_), Some((OperatorState::Named, Some(first)))) if self.stands(&first) => OperatorState::Stands,
            (Some(_), _) => OperatorState::Named,
        };
        let named_by = if state == OperatorState::Named { act.by } else { None };
        let last = self.keys.get(&act.key).and_then(|record| record.last);
        self.keys.insert(act.key, OperatorRecord { name: act.name.clone(), state, named_by, last });
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_protocol::keys::SecretKey;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_bytes(&[seed; 32]).unwrap().public()
    }

    fn change(operators: &mut Operators, by: Option<u8>, of: u8, stands: bool) -> Result<(), Reject> {
        let by = by.map(key);
        let alone = operators.standing() < QUORUM;
        let number = by.map_or(0, |by| operators.get(&by).map_or(1, |record| record.number() + 1));
        let digest = Hash([of; 32]);
        operators.check(by, number, &digest, alone)?;
        operators.change(&Operator { number, by, key: key(of), stands, name: "Somebody".into() })?;
        operators.take(by, number, digest);
        Ok(())
    }

    #[test]
    fn hub_itself_adds_the_first_two_and_no_more() {
        let mut operators = Operators::default();
        change(&mut operators, None, 1, true).unwrap();
        assert_eq!(change(&mut operators, None, 1, true), Err(Reject::Exists));
        change(&mut operators, None, 2, true).unwrap();
        assert_eq!(change(&mut operators, None, 3, true), Err(Reject::Unauthenticated));
        assert_eq!(change(&mut operators, None, 1, false), Err(Reject::Unauthenticated));
    }

    #[test]
    fn third_operator_stands_once_two_have_named_it() {
        let mut operators = Operators::default();
        change(&mut operators, None, 1, true).unwrap();
        change(&mut operators, None, 2, true).unwrap();
        change(&mut operators, Some(1), 3, true).unwrap();
        assert!(!operators.stands(&key(3)));
        assert_eq!(change(&mut operators, Some(1), 3, true), Err(Reject::Exists), "nobody is two");
        assert_eq!(change(&mut operators, Some(3), 4, true), Err(Reject::Unauthenticated), "it does not stand yet");
        change(&mut operators, Some(2), 3, true).unwrap();
        assert!(operators.stands(&key(3)));
    }

    #[test]
    fn name_given_by_a_revoked_operator_does_not_count() {
        let mut operators = Operators::default();
        for seed in [1, 2] {
            change(&mut operators, None, seed, true).unwrap();
        }
        change(&mut operators, Some(1), 3, true).unwrap();
        change(&mut operators, Some(2), 3, true).unwrap();
        change(&mut operators, Some(1), 4, true).unwrap();
        change(&mut operators, Some(2), 1, false).unwrap();
        change(&mut operators, Some(2), 4, true).unwrap();
        assert!(!operators.stands(&key(4)), "it begins anew with the second name");
        change(&mut operators, Some(3), 4, true).unwrap();
        assert!(operators.stands(&key(4)));
    }

    #[test]
    fn operator_who_revokes_himself_still_gets_his_answer_and_no_other() {
        let mut operators = Operators::default();
        for seed in [1, 2] {
            change(&mut operators, None, seed, true).unwrap();
        }
        change(&mut operators, Some(1), 1, false).unwrap();
        let digest = Hash([1; 32]);
        assert_eq!(operators.check(Some(key(1)), 1, &digest, false), Ok(Numbered::Again));
        assert_eq!(operators.check(Some(key(1)), 2, &digest, false), Err(Reject::Unauthenticated));
        change(&mut operators, None, 1, true).unwrap();
        assert_eq!(operators.get(&key(1)).unwrap().number(), 1, "old signatures stay dead");
    }
}
