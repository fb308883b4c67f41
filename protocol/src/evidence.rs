//! Evidence: a self-contained file that proves what became of one channel, one payment or one payout, to anyone who has the
//! hub's id, offline and without the hub.
//!
//! A file makes one **claim** and carries every signature, act and path that it follows from. It has one form: each field is
//! needed, checked against something signed, and written in one way only. So whatever is changed or left out, it is refused.
//! What it proves and what it does not is said in words by its [`Verdict`].

mod channel;
mod payment;
mod payout;
mod single;
mod verdict;

use core::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::act::{Act, Author};
use crate::amount::Time;
use crate::commit::{Blind, ProofError, SignedCertificate, SignedCommit, act_item};
use crate::hash::Hash;
use crate::id::HubId;
use crate::keys::{PublicKey, Signature};
use crate::merkle::{self, Path};

pub use channel::{ChannelClaim, ChannelEvidence, HeadGroup, LanePart};
pub use payment::{PaymentClaim, PaymentEvidence, ReceiptClaim, ReceiptEvidence};
pub use payout::{PayoutClaim, PayoutEvidence, PayoutStage, end_to_end_id};
pub use single::ActEvidence;
pub use verdict::Verdict;

/// No evidence is longer, in bytes of JSON: what is, is not read.
pub const MAX_EVIDENCE_BYTES: usize = 4 << 20;

/// Why a file proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Not a file of this kind.
    #[error("not evidence: {0}")]
    Json(String),
    /// Longer than any evidence.
    #[error("not evidence: longer than {MAX_EVIDENCE_BYTES} bytes")]
    Long,
    /// Another format, or another version of it.
    #[error("not evidence: format `{0}` is not `weir-evidence/1`")]
    Format(String),
    /// A field is unknown, missing or written in another way than the one.
    #[error("evidence is not in its one form: a field is unknown, missing, or written in another way")]
    Form,
    /// A proof of the hub does not hold.
    #[error("{0}: {1}")]
    Proof(&'static str, ProofError),
    /// A signature that must be there is missing or wrong, or one is there that must not be.
    #[error("{0}: signature is missing or not its author's")]
    Signature(&'static str),
    /// The parts do not give what is claimed.
    #[error("{0}")]
    Content(&'static str),
}

/// Evidence as a file: JSON with the names and forms of the specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// [`Evidence::FORMAT`].
    pub format: String,
    /// The hub.
    pub hub: HubId,
    /// The certificates that cover the commits, oldest first; each is needed.
    pub certificates: Vec<SignedCertificate>,
    /// The commits that the parts are in, by number, and last the newest one known: its history covers the others.
    pub commits: Vec<PlacedCommit>,
    /// What is proven, with its parts.
    pub proof: Proof,
}

/// A commit and its place in the history of the newest one in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedCommit {
    /// The commit.
    pub signed: SignedCommit,
    /// Inclusion of its id as leaf `number − 1` among the `newest.number − 1` leaves of the newest one's history (RFC 9162
    /// §2.1.3); empty for the newest itself.
    pub history: Vec<Hash>,
}

/// The kinds of claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// What was spent of a channel.
    Channel(Box<ChannelEvidence>),
    /// A payment with the payer's authorisation.
    Payment(Box<PaymentEvidence>),
    /// A payment as its payee can show it, without the payer.
    Receipt(Box<ReceiptEvidence>),
    /// A payout to a bank account.
    Payout(Box<PayoutEvidence>),
    /// One act by itself: a line of a statement.
    Act(Box<ActEvidence>),
}

/// An act with its author's signature and its place in a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActPart {
    /// The act.
    pub act: Act,
    /// Its author's signature over its digest; none for the hub's own.
    pub signature: Option<Signature>,
    /// The number of its commit.
    pub commit: u64,
    /// Its blind.
    pub blind: Blind,
    /// Its place in that commit.
    pub path: Path,
}

/// Something's place in a commit of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number of the commit.
    pub commit: u64,
    /// From the item to the commit's root.
    pub path: Path,
}

impl Evidence {
    /// The value of `format`.
    pub const FORMAT: &'static str = "weir-evidence/1";

    /// Puts a file together. `commits`: all that the parts are in and the newest one, in any order.
    pub fn new(hub: HubId, certificates: Vec<SignedCertificate>, mut commits: Vec<PlacedCommit>, proof: Proof) -> Self {
        commits.sort_by_key(|placed| placed.signed.commit.number);
        Self { format: Self::FORMAT.to_owned(), hub, certificates, commits, proof }
    }

    /// Reads and checks a file against the hub that it names, or that is `trusted`.
    pub fn read(bytes: &[u8], trusted: Option<HubId>) -> Result<(Self, Verdict), EvidenceError> {
        if bytes.len() > MAX_EVIDENCE_BYTES {
            return Err(EvidenceError::Long);
        }
        let json = |error: serde_json::Error| EvidenceError::Json(error.to_string());
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
        let format = value.get("format").and_then(serde_json::Value::as_str).unwrap_or_default();
        if format != Self::FORMAT {
            return Err(EvidenceError::Format(format.chars().take(40).collect()));
        }
        // From the bytes, not from the value: a field that is there twice is refused.
        let evidence: Self = serde_json::from_slice(bytes).map_err(json)?;
        if serde_json::to_value(&evidence).map_err(json)? != value {
            return Err(EvidenceError::Form);
        }
        if trusted.is_some_and(|trusted| trusted != evidence.hub) {
            return Err(EvidenceError::Content("the evidence is of another hub than the one that is trusted"));
        }
        let verdict = evidence.check()?;
        Ok((evidence, verdict))
    }

    /// Checks everything inside against the hub that it names.
    pub fn check(&self) -> Result<Verdict, EvidenceError> {
        if self.format != Self::FORMAT {
            return Err(EvidenceError::Format(self.format.chars().take(40).collect()));
        }
        let checked = Checked::new(self)?;
        let mut verdict = match &self.proof {
            Proof::Channel(proof) => proof.check(&checked),
            Proof::Payment(proof) => proof.check(&checked),
            Proof::Receipt(proof) => proof.check(&checked),
            Proof::Payout(proof) => proof.check(&checked),
            Proof::Act(proof) => proof.check(&checked),
        }?;
        checked.all_used()?;
        verdict.seal(&checked);
        Ok(verdict)
    }

    /// The bytes of the file.
    pub fn to_json(&self) -> Result<Vec<u8>, EvidenceError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| EvidenceError::Json(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The commits of a file once their signatures and their history hold, and which of them the parts have named.
struct Checked<'a> {
    hub: &'a HubId,
    commits: BTreeMap<u64, &'a SignedCommit>,
    newest: &'a SignedCommit,
    used: RefCell<BTreeSet<u64>>,
}

impl<'a> Checked<'a> {
    fn new(evidence: &'a Evidence) -> Result<Self, EvidenceError> {
        let hub = &evidence.hub;
        let mut before = None;
        for signed in &evidence.certificates {
            signed.check(hub).map_err(|error| EvidenceError::Proof("certificate", error))?;
            let begins = signed.certificate.not_before;
            if before.is_some_and(|before| begins < before) {
                return Err(EvidenceError::Content("the certificates are not in order"));
            }
            before = Some(begins);
        }
        let newest = &evidence.commits.last().ok_or(EvidenceError::Content("there is no commit"))?.signed;
        let mut commits: BTreeMap<u64, &SignedCommit> = BTreeMap::new();
        let mut covering = BTreeSet::new();
        for placed in &evidence.commits {
            let signed = &placed.signed;
            let commit = &signed.commit;
            if let Some((number, last)) = commits.last_key_value() {
                let grows =
                    commit.number > *number && commit.time >= last.commit.time && commit.chain >= last.commit.chain;
                if !grows {
                    return Err(EvidenceError::Content("the commits are not in order"));
                }
            }
            let at = evidence
                .certificates
                .iter()
                .rposition(|certificate| certificate.certificate.not_before <= commit.time)
                .ok_or(EvidenceError::Proof("commit", ProofError::CertificateTime))?;
            covering.insert(at);
            let certificate = evidence.certificates.get(at).ok_or(EvidenceError::Content("no certificate"))?;
            signed.check(hub, &certificate.certificate).map_err(|error| EvidenceError::Proof("commit", error))?;
            if !in_history(placed, newest) {
                return Err(EvidenceError::Proof("history", ProofError::Path));
            }
            commits.insert(commit.number, signed);
        }
        if covering.len() != evidence.certificates.len() {
            return Err(EvidenceError::Content("a certificate covers no commit of the file"));
        }
        Ok(Self { hub, commits, newest, used: RefCell::new(BTreeSet::new()) })
    }

    fn commit(&self, number: u64, what: &'static str) -> Result<&'a SignedCommit, EvidenceError> {
        self.used.borrow_mut().insert(number);
        self.commits.get(&number).copied().ok_or(EvidenceError::Proof(what, ProofError::Commit))
    }

    /// Whether an item is where its place says.
    fn item(&self, item: &Hash, place: &Place, what: &'static str) -> Result<&'a SignedCommit, EvidenceError> {
        let commit = self.commit(place.commit, what)?;
        commit.includes(item, &place.path).map_err(|error| EvidenceError::Proof(what, error))?;
        Ok(commit)
    }

    /// Whether an act is where it says and signed by one of these keys, which must be none for an act of the hub.
    fn act(&self, part: &ActPart, keys: &[PublicKey], what: &'static str) -> Result<&'a SignedCommit, EvidenceError> {
        let commit = self.commit(part.commit, what)?;
        let digest = part.act.digest(self.hub);
        let item = act_item(&part.blind, part.act.kind(), &digest);
        commit.includes(&item, &part.path).map_err(|error| EvidenceError::Proof(what, error))?;
        let signed = match (part.act.author(), part.signature) {
            (Author::Hub, None) => keys.is_empty(),
            (Author::Hub, Some(_)) | (_, None) => false,
            (_, Some(signature)) => keys.iter().any(|key| key.verify(&digest, &signature)),
        };
        if signed { Ok(commit) } else { Err(EvidenceError::Signature(what)) }
    }

    /// The time of a commit that was named before.
    fn time(&self, number: u64) -> Time {
        self.commits.get(&number).map_or(Time(0), |commit| commit.commit.time)
    }

    fn all_used(&self) -> Result<(), EvidenceError> {
        let used = self.used.borrow();
        let newest = self.newest.commit.number;
        if self.commits.keys().all(|number| *number == newest || used.contains(number)) {
            Ok(())
        } else {
            Err(EvidenceError::Content("a commit of the file proves nothing"))
        }
    }
}

fn in_history(placed: &PlacedCommit, newest: &SignedCommit) -> bool {
    let (commit, newest) = (&placed.signed.commit, &newest.commit);
    if commit.number == newest.number {
        return placed.history.is_empty();
    }
    let (Some(index), Some(count)) = (commit.number.checked_sub(1), newest.number.checked_sub(1)) else { return false };
    merkle::history_includes(index, count, &commit.id(), &placed.history, &newest.history)
}

/// Where an act stands: acts are compared by it.
fn order(part: &ActPart) -> (u64, u32) {
    (part.commit, part.path.index)
}

/// Takes what a part must be.
macro_rules! expect_act {
    ($part:expr, $kind:ident, $what:literal) => {
        match &$part.act {
            Act::$kind(act) => Ok(act),
            _ => Err(EvidenceError::Content(concat!("the part `", $what, "` is another act"))),
        }
    };
}
use expect_act;
