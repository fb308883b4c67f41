//! Proofs of payments: `verify` (offline, needs no home), `receipts`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use weir_client::Client;
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::evidence::{Evidence, MAX_EVIDENCE_BYTES, Verdict};
use weir_client::protocol::hash::tag;
use weir_client::protocol::http::Credential;
use weir_client::protocol::http::x402::PaymentPayload;
use weir_client::protocol::id::{AccountId, HubAddress, HubId, IdError, PaymentId, Reference};
use weir_client::protocol::receipt::ReceiptFile;

use super::account::yes;
use super::context::{Context, Use};
use super::failure::Failure;
use super::printer::{self, Printer, say};
use super::text::{self, short};

/// No receipt is longer: what is, is not read.
const MOST_BYTES: u64 = 64 * 1024;
/// No file that is verified is longer.
const MOST_EVIDENCE_BYTES: u64 = MAX_EVIDENCE_BYTES as u64;

#[derive(Debug, Args)]
#[command(
    after_help = "Works offline and without a home. Name the hub that you trust: without `--hub` it is only shown that the file is good at the hub that it names itself.\nIt says what is proven and what is not.\nExit codes: 0 valid, 1 not.\n\nExamples:\n  weir verify receipt.json --hub weirhub1…\n  weir verify evidence.json --hub weirhub1…\n  weir verify - --hub weir://weirhub1…@hub.example.org:4433 < receipt.json\n  weir verify 'Payment eyJ…' --hub weirhub1… --payee weir1… --amount 0.05 --challenge-id …"
)]
pub(super) struct VerifyArgs {
    /// A receipt, as `weir pay` wrote it, evidence, or a credential as a client shows it over HTTP; `-` reads it from
    /// stdin. A credential can also be given as it is: `Payment …`, or the value of `PAYMENT-SIGNATURE`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The hub that must have signed: its id or its address.
    #[arg(long, env = "WEIR_HUB", value_name = "HUB")]
    hub: Option<HubChoice>,
    /// The account that must have been paid.
    #[arg(long, value_name = "ACCOUNT")]
    payee: Option<AccountId>,
    /// The least that must have been paid.
    #[arg(long, value_name = "AMOUNT")]
    amount: Option<Amount>,
    /// The currency that it must be.
    #[arg(long)]
    currency: Option<Currency>,
    /// The challenge that a credential must answer: its id. Whoever issued it knows.
    #[arg(long, value_name = "ID")]
    challenge_id: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir receipts\n  weir receipts 7d1f…   (writes the receipt of the payment with this reference again)"
)]
pub(super) struct ReceiptsArgs {
    /// References of payments that this home made, 64 hex digits each: their receipts are written again.
    #[arg(value_name = "REFERENCE")]
    references: Vec<Reference>,
}

/// A hub by its id or its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HubChoice(HubId);

impl FromStr for HubChoice {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.contains("://") {
            return text.parse::<HubAddress>().map(|address| Self(address.hub));
        }
        text.parse().map(Self)
    }
}

/// What was found. The same shape for receipts and evidence.
#[derive(Debug, Serialize)]
struct Judged {
    valid: bool,
    /// Why not; null when it is valid.
    reason: Option<String>,
    /// `receipt`, or the kind of the evidence; null when it is not valid.
    kind: Option<&'static str>,
    /// The commit that made it so, and its time.
    commit: Option<u64>,
    time_ms: Option<u64>,
    proven: Vec<String>,
    not_proven: Vec<String>,
    /// The payment that a receipt or a credential proves; null for anything else.
    payment: Option<ProvenPayment>,
    /// What a credential answers; null for anything else.
    challenge: Option<Answered>,
    #[serde(skip)]
    facts: Vec<(&'static str, String)>,
}

/// A payment, for programs.
#[derive(Debug, Serialize)]
struct ProvenPayment {
    payment_id: PaymentId,
    amount: Amount,
    currency: Currency,
    payee: AccountId,
    reference: Reference,
    hub: HubId,
}

/// The challenge of a credential, for programs.
#[derive(Debug, Serialize)]
struct Answered {
    id: String,
    realm: String,
    /// What it asked for.
    amount: Amount,
    metered: bool,
    expires_at_ms: Option<u64>,
}

impl ProvenPayment {
    fn new(receipt: &ReceiptFile) -> Self {
        Self {
            payment_id: receipt.receipt.payment_id,
            amount: receipt.amount,
            currency: receipt.currency,
            payee: receipt.payee,
            reference: receipt.reference,
            hub: receipt.hub,
        }
    }
}

impl Judged {
    fn invalid(reason: String) -> Self {
        Self {
            valid: false,
            reason: Some(reason),
            kind: None,
            commit: None,
            time_ms: None,
            proven: Vec::new(),
            not_proven: Vec::new(),
            payment: None,
            challenge: None,
            facts: Vec::new(),
        }
    }

    fn receipt(receipt: &ReceiptFile, time: Time) -> Self {
        let amount = format!("{} {}", receipt.amount, receipt.currency);
        let number = receipt.receipt.number;
        let mut facts = vec![
            ("payment", receipt.receipt.payment_id.to_string()),
            ("amount", amount.clone()),
            ("payee", receipt.payee.to_string()),
            ("reference", receipt.reference.to_string()),
            ("hub", receipt.hub.to_string()),
        ];
        facts.extend(text::note(&receipt.reference).map(|note| ("note", note)));
        Self {
            valid: true,
            reason: None,
            kind: Some("receipt"),
            commit: Some(number),
            time_ms: Some(time.0),
            proven: vec![format!(
                "The hub took a payment of {amount} to this payee with this reference in commit {number}."
            )],
            not_proven: vec!["Who paid.".to_owned(), "That nothing of it was given back.".to_owned()],
            payment: Some(ProvenPayment::new(receipt)),
            challenge: None,
            facts,
        }
    }

    /// A receipt together with the challenge that its reference is derived from.
    fn credential(receipt: &ReceiptFile, time: Time, credential: &Credential, known: bool) -> Result<Self, String> {
        let request = credential.challenge.charge().map_err(|error| error.to_string())?;
        let expires_at = credential.challenge.expires_at().map_err(|error| error.to_string())?;
        let mut judged = Self::receipt(receipt, time);
        judged.kind = Some("credential");
        judged.proven.push(format!(
            "It was paid in time for the challenge `{}` of `{}`, which asks for {} {}.",
            credential.challenge.id, credential.challenge.realm, request.amount, request.currency
        ));
        if !known {
            judged.not_proven.push(
                "That the challenge was issued by the one who asks: only the issuer knows, by its id.".to_owned(),
            );
        }
        judged.not_proven.push("That nothing of it was used before.".to_owned());
        judged.challenge = Some(Answered {
            id: credential.challenge.id.clone(),
            realm: credential.challenge.realm.clone(),
            amount: request.amount,
            metered: request.details.metered,
            expires_at_ms: text::bound_ms(expires_at),
        });
        Ok(judged)
    }

    fn evidence(evidence: &Evidence, verdict: Verdict) -> Self {
        let mut facts = verdict.facts;
        facts.push(("hub", evidence.hub.to_string()));
        facts.push(("history up to commit", verdict.newest.to_string()));
        Self {
            valid: true,
            reason: None,
            kind: Some(verdict.kind),
            commit: Some(verdict.commit),
            time_ms: Some(verdict.time.0),
            proven: verdict.proven,
            not_proven: verdict.open,
            payment: None,
            challenge: None,
            facts,
        }
    }

    fn show(&self) -> String {
        let mut facts = vec![("valid", yes(self.valid))];
        facts.extend(self.reason.iter().map(|reason| ("reason", reason.clone())));
        facts.extend(self.kind.map(|kind| ("kind", kind.to_owned())));
        facts.extend(self.facts.iter().cloned());
        facts.extend(self.time_ms.map(|time| ("time", text::time(Time(time)))));
        facts.extend(self.commit.map(|commit| ("commit", commit.to_string())));
        facts.extend(self.proven.iter().map(|sentence| ("proven", sentence.clone())));
        facts.extend(self.not_proven.iter().map(|sentence| ("not proven", sentence.clone())));
        printer::facts(facts)
    }
}

/// Judges a receipt or evidence.
pub(super) fn verify(printer: Printer, args: &VerifyArgs) -> Result<(), Failure> {
    let given = args.file.to_str().filter(|text| credential(text.as_bytes()).is_some());
    let bytes = match given {
        Some(text) => text.as_bytes().to_vec(),
        None => read(&args.file).with_context(|| format!("cannot read `{}`", args.file.display()))?,
    };
    let hub = args.hub.map(|HubChoice(hub)| hub);
    let judged = if let Some(shown) = credential(&bytes) {
        shown.and_then(|shown| judge_credential(&shown, hub, args)).unwrap_or_else(Judged::invalid)
    } else if is_evidence(&bytes) {
        if args.payee.is_some() || args.amount.is_some() || args.currency.is_some() || args.challenge_id.is_some() {
            let error = anyhow!(
                "`--payee`, `--amount`, `--currency` and `--challenge-id` are about receipts, and this is evidence"
            );
            return Err(Failure::usage(error));
        }
        match Evidence::read(&bytes, hub) {
            Ok((evidence, verdict)) => Judged::evidence(&evidence, verdict),
            Err(error) => Judged::invalid(error.to_string()),
        }
    } else {
        match judge(&bytes, hub) {
            Ok((receipt, time)) => match wanted(&receipt, args) {
                Ok(()) => Judged::receipt(&receipt, time),
                Err(reason) => Judged::invalid(reason),
            },
            Err(reason) => Judged::invalid(reason),
        }
    };
    printer.print(&judged, Judged::show)?;
    if !judged.valid {
        return Err(Failure::said());
    }
    if args.hub.is_none() {
        say("No hub was named with `--hub`: it is good at the hub that it names itself.");
    }
    Ok(())
}

/// Whether a file says that it is evidence, of any version.
fn is_evidence(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        format: String,
    }
    serde_json::from_slice::<Named>(bytes).is_ok_and(|named| named.format.starts_with("weir-evidence/"))
}

/// A credential in either dialect; none when it is something else.
fn credential(bytes: &[u8]) -> Option<Result<Credential, String>> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if let Some(shown) = Credential::from_header(text) {
        return Some(shown.map_err(|error| error.to_string()));
    }
    PaymentPayload::from_header(text).ok().map(|payload| payload.credential().map_err(|error| error.to_string()))
}

/// Whether a receipt is what the options ask for.
fn wanted(receipt: &ReceiptFile, args: &VerifyArgs) -> Result<(), String> {
    if let Some(payee) = args.payee.filter(|payee| *payee != receipt.payee) {
        return Err(format!("{} was paid, not {payee}", receipt.payee));
    }
    if let Some(currency) = args.currency.filter(|currency| *currency != receipt.currency) {
        return Err(format!("it was paid in {}, not in {currency}", receipt.currency));
    }
    let reference = |id: &String| Reference(tag::REFERENCE.hash(id.as_bytes()).0);
    if let Some(id) = args.challenge_id.as_ref().filter(|id| reference(id) != receipt.reference) {
        return Err(format!("its reference is not that of the challenge `{id}`"));
    }
    match args.amount.filter(|least| receipt.amount < *least) {
        Some(least) => Err(format!("{} was paid, less than {least}", receipt.amount)),
        None => Ok(()),
    }
}

/// What a credential proves: its receipt, and that it answers its challenge in time.
fn judge_credential(shown: &Credential, hub: Option<HubId>, args: &VerifyArgs) -> Result<Judged, String> {
    let request = shown.challenge.charge().map_err(|error| error.to_string())?;
    let expires_at = shown.challenge.expires_at().map_err(|error| error.to_string())?;
    if let Some(id) = args.challenge_id.as_ref().filter(|id| **id != shown.challenge.id) {
        return Err(format!("it answers the challenge `{}`, not `{id}`", shown.challenge.id));
    }
    let receipt = shown.receipt_file().ok_or("the credential's receipt cannot be read")?;
    if let Some(hub) = hub.filter(|hub| *hub != receipt.hub) {
        return Err(format!("receipt is of the hub {}, not of {hub}", receipt.hub));
    }
    let time = receipt.check().map_err(|error| error.to_string())?.commit.time;
    if receipt.amount < request.amount {
        return Err(format!("{} was paid, and the challenge asks for {}", receipt.amount, request.amount));
    }
    if time >= expires_at || request.details.issued_at.is_some_and(|issued_at| time < issued_at) {
        return Err("it was paid outside the challenge's time".to_owned());
    }
    wanted(&receipt, args)?;
    Judged::credential(&receipt, time, shown, args.challenge_id.is_some())
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MOST_EVIDENCE_BYTES + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(MOST_EVIDENCE_BYTES + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The receipt and its commit's time, or why it proves nothing.
fn judge(bytes: &[u8], hub: Option<HubId>) -> Result<(ReceiptFile, Time), String> {
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("not a receipt: longer than {MOST_BYTES} bytes"));
    }
    let receipt: ReceiptFile = serde_json::from_slice(bytes).map_err(|error| format!("not a receipt: {error}"))?;
    if receipt.format != ReceiptFile::FORMAT {
        return Err(format!("not a receipt: format `{}` is not `{}`", receipt.format, ReceiptFile::FORMAT));
    }
    if let Some(hub) = hub.filter(|hub| *hub != receipt.hub) {
        return Err(format!("receipt is of the hub {}, not of {hub}", receipt.hub));
    }
    let commit = receipt.check().map_err(|error| error.to_string())?;
    Ok((receipt, commit.commit.time))
}

#[derive(Debug, Serialize)]
struct Receipts {
    receipts: Vec<Kept>,
}

/// A receipt in the home's folder.
#[derive(Debug, Serialize)]
struct Kept {
    payment_id: PaymentId,
    time_ms: u64,
    amount: Amount,
    currency: Currency,
    payee: AccountId,
    reference: Reference,
    note: Option<String>,
    valid: bool,
    receipt_file: String,
}

impl Kept {
    fn new(receipt: &ReceiptFile, hub: HubId, path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            payment_id: receipt.receipt.payment_id,
            time_ms: receipt.receipt.time.0,
            amount: receipt.amount,
            currency: receipt.currency,
            payee: receipt.payee,
            reference: receipt.reference,
            note: text::note(&receipt.reference),
            valid: receipt.hub == hub && receipt.check().is_ok(),
            receipt_file: path.display().to_string(),
        }
    }

    fn row(&self) -> [String; 7] {
        [
            text::time(Time(self.time_ms)),
            self.amount.to_string(),
            self.currency.to_string(),
            short(&self.payee),
            self.note.clone().unwrap_or_else(|| short(&self.reference)),
            yes(self.valid),
            self.receipt_file.clone(),
        ]
    }
}

impl Receipts {
    fn show(&self) -> String {
        let heading = ["TIME", "AMOUNT", "", "PAYEE", "REFERENCE", "VALID", "FILE"];
        printer::table(heading, self.receipts.iter().map(Kept::row), "no receipts yet: `weir pay` writes them")
    }
}

/// Lists the receipts in the home, or writes those of earlier payments again.
pub(super) async fn receipts(context: &Context, args: &ReceiptsArgs) -> Result<(), Failure> {
    let mut receipts =
        if args.references.is_empty() { list(context)? } else { again(context, &args.references).await? };
    receipts.sort_by_key(|kept| (kept.time_ms, kept.payment_id));
    context.printer.print(&Receipts { receipts }, Receipts::show)
}

fn list(context: &Context) -> Result<Vec<Kept>, Failure> {
    let home = context.look()?;
    let folder = home.path().join("receipts");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut receipts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        match serde_json::from_slice(&bytes) {
            Ok(receipt) => receipts.push(Kept::new(&receipt, home.hub().hub, &path)),
            Err(error) => say(&format!("`{}` is not a receipt: {error}", path.display())),
        }
    }
    Ok(receipts)
}

async fn again(context: &Context, references: &[Reference]) -> Result<Vec<Kept>, Failure> {
    let client = context.client(Use::Beside).await?;
    let mut receipts = Vec::new();
    for reference in references {
        let receipt = rebuilt(&client, reference).await?;
        let path = client.home().keep_receipt(&receipt)?;
        receipts.push(Kept::new(&receipt, client.hub(), &path));
    }
    client.shut_down().await;
    Ok(receipts)
}

/// The receipt of a payment from the lane's own log.
async fn rebuilt(client: &Client, reference: &Reference) -> Result<ReceiptFile, Failure> {
    for record in client.home().lanes()? {
        let Some((group, index)) = client.home().find_paid(&record.id(), reference)? else { continue };
        let commit = &group.answer.commit.commit;
        let certificate = match client.proofs().certificate_at(commit.time) {
            Some(certificate) => certificate,
            // The hub tells which key signed an old commit.
            None => client.commit(commit.number).await?.certificate,
        };
        let receipt = group.receipt_file(index, certificate)?;
        receipt.check().context("the hub's answer to this payment proves nothing")?;
        return Ok(receipt);
    }
    let error = anyhow!("no lane of this home keeps a payment with reference `{reference}`");
    Err(Failure::from(error).hint("the same `weir pay` with this reference asks the hub, and never pays twice"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_client::protocol::keys::PublicKey;

    #[test]
    fn hub_is_named_by_id_or_address() {
        let hub = HubId(PublicKey([9; 32]));
        assert_eq!(hub.to_string().parse(), Ok(HubChoice(hub)));
        assert_eq!(format!("weir://{hub}@localhost:1").parse(), Ok(HubChoice(hub)));
        assert!(AccountId(PublicKey([9; 32])).to_string().parse::<HubChoice>().is_err());
    }

    #[test]
    fn receipt_files_of_the_vectors_are_judged_as_they_say() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../protocol/vectors/receipts.json")).unwrap();
        let files = vectors["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == "receipt_file");
        let mut judged = 0;
        for case in files {
            let bytes = serde_json::to_vec(&case["file"]).unwrap();
            let valid = judge(&bytes, None);
            assert_eq!(valid.is_ok(), case["valid"], "{}: {valid:?}", case["name"]);
            // Good or bad, it is never good for a hub that it does not name.
            assert!(judge(&bytes, Some(HubId(PublicKey([9; 32])))).is_err());
            judged += 1;
        }
        assert!(judged >= 4);
    }

    #[test]
    fn credentials_of_the_vectors_are_judged_and_compared_with_what_is_asked_for() {
        let args = |id: Option<&str>, amount: Option<&str>| VerifyArgs {
            file: PathBuf::new(),
            hub: None,
            payee: None,
            amount: amount.map(|amount| amount.parse().unwrap()),
            currency: None,
            challenge_id: id.map(str::to_owned),
        };
        for text in ["Payment !!", "Payment e30"] {
            assert!(credential(text.as_bytes()).unwrap().is_err(), "{text}");
        }
        assert!(credential(b"{}").is_none() && credential(b"\xff").is_none() && credential(b"Basic abc").is_none());
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../protocol/vectors/receipts.json")).unwrap();
        let case = vectors["cases"].as_array().unwrap().iter().find(|case| case["kind"] == "receipt_file");
        let receipt: ReceiptFile = serde_json::from_value(case.unwrap()["file"].clone()).unwrap();
        assert!(wanted(&receipt, &args(None, None)).is_ok());
        assert!(wanted(&receipt, &args(None, Some(&receipt.amount.to_string()))).is_ok());
        assert!(wanted(&receipt, &args(None, Some("18000000000"))).is_err());
        assert!(wanted(&receipt, &args(Some("other"), None)).is_err());
        let payee = Some(AccountId(PublicKey([9; 32])));
        assert!(wanted(&receipt, &VerifyArgs { payee, ..args(None, None) }).is_err());
        let currency = Some("USD".parse().unwrap());
        assert!(wanted(&receipt, &VerifyArgs { currency, ..args(None, None) }).is_err());
    }

    #[test]
    fn evidence_files_of_the_vectors_hold_at_their_hub_and_at_no_other() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../protocol/vectors/evidence.json")).unwrap();
        let files = vectors["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == "evidence");
        for case in files {
            let bytes = serde_json::to_vec(&case["file"]).unwrap();
            assert!(is_evidence(&bytes));
            let (evidence, verdict) = Evidence::read(&bytes, None).unwrap();
            let judged = Judged::evidence(&evidence, verdict);
            assert!(judged.valid && judged.show().contains("not proven"));
            assert!(Evidence::read(&bytes, Some(HubId(PublicKey([9; 32])))).is_err());
        }
    }

    #[test]
    fn file_that_is_no_receipt_is_judged_not_a_failure() {
        for bytes in [b"".to_vec(), b"{}".to_vec(), b"[]".to_vec(), b"\xff\xff".to_vec(), vec![b' '; 70_000]] {
            assert!(judge(&bytes, None).unwrap_err().starts_with("not a receipt"), "{}", bytes.len());
        }
    }
}
