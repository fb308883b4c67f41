//! Reading camt files entry by entry, and the checks without which nothing of a file is given out.

use std::io::Read;

use rust_decimal::Decimal;

use super::{Balance, Batch, Detail, Direction, Entry, EntryStatus, Party, Statement, StatementFile, StatementKind};
use crate::bank::calendar::Date;
use crate::bank::transfer::NOT_PROVIDED;
use crate::bank::xml::{Block, MessageName, Node, ReadError, Word, XmlReader, amount, count};
use crate::details::{clip, compact};

/// Takes a file's entries as they are read, so that a file of any length needs no more memory than its largest entry.
///
/// What it is given may be of a file that turns out wrong at its end: it must not act on it before the file has been read
/// whole.
pub trait EntrySink {
    /// The next entry of `statement`, whose own list of entries is empty.
    fn entry(&mut self, kind: StatementKind, statement: &Statement, entry: Entry) -> Result<(), ReadError>;

    /// The end of a statement whose sums are right. `booked`: how many booked entries it had.
    fn end(&mut self, kind: StatementKind, statement: Statement, booked: u32) -> Result<(), ReadError>;
}

/// Keeps everything.
#[derive(Default)]
struct Collect {
    entries: Vec<Entry>,
    statements: Vec<Statement>,
}

impl EntrySink for Collect {
    fn entry(&mut self, _: StatementKind, _: &Statement, entry: Entry) -> Result<(), ReadError> {
        self.entries.push(entry);
        Ok(())
    }

    fn end(&mut self, _: StatementKind, statement: Statement, _: u32) -> Result<(), ReadError> {
        self.statements.push(Statement { entries: std::mem::take(&mut self.entries), ..statement });
        Ok(())
    }
}

impl StatementFile {
    /// Reads a camt.052, .053 or .054 of version .02 to .14, whole and checked.
    pub fn read(input: impl Read) -> Result<Self, ReadError> {
        let (reader, message) = XmlReader::open(input)?;
        Self::read_from(reader, &message)
    }

    pub(in crate::bank) fn read_from(reader: XmlReader<impl Read>, message: &MessageName) -> Result<Self, ReadError> {
        let mut all = Collect::default();
        let file = Self::scan_from(reader, message, &mut all)?;
        Ok(Self { statements: all.statements, ..file })
    }

    /// Like [`Self::read`], giving the entries away one by one; without statements in what it returns.
    pub(in crate::bank) fn scan_from(
        mut reader: XmlReader<impl Read>,
        message: &MessageName,
        sink: &mut dyn EntrySink,
    ) -> Result<Self, ReadError> {
        let (kind, root, block) = match message.family.as_str() {
            "camt.052" => (StatementKind::Report, "BkToCstmrAcctRpt", "Rpt"),
            "camt.053" => (StatementKind::Statement, "BkToCstmrStmt", "Stmt"),
            "camt.054" => (StatementKind::Notification, "BkToCstmrDbtCdtNtfctn", "Ntfctn"),
            _ => return Err(ReadError::Unsupported(message.full.clone())),
        };
        if !(2..=14).contains(&message.version) {
            return Err(ReadError::Unsupported(message.full.clone()));
        }
        reader.message(root)?;
        let mut header = None;
        let mut statements = 0_u32;
        while let Some(tag) = reader.child()? {
            if tag.name == "GrpHdr" {
                header = Some(reader.block(tag)?);
            } else if tag.name == block {
                read_statement(&mut reader, kind, sink)?;
                statements += 1;
            } else {
                reader.skip()?;
            }
        }
        reader.finish()?;
        // Some leave the header out, though the schemas want it: nothing depends on it.
        let header: Block = header.unwrap_or_default();
        let header = header.root();
        if statements == 0 {
            return Err(ReadError::Missing(block));
        }
        Ok(Self {
            kind,
            message_id: header.string_at(&["MsgId"]).unwrap_or_default(),
            created: header.string_at(&["CreDtTm"]),
            statements: Vec::new(),
        })
    }
}

fn read_statement(
    reader: &mut XmlReader<impl Read>,
    kind: StatementKind,
    sink: &mut dyn EntrySink,
) -> Result<(), ReadError> {
    let mut fields = Block::default();
    let mut blocks = Blocks::default();
    let mut balances = Vec::new();
    let mut head: Option<Statement> = None;
    let mut sums = Booked::default();
    while let Some(tag) = reader.child()? {
        match tag.name.as_str() {
            "Ntry" => {
                let entry = read_entry(reader, &mut blocks)?;
                // The schemas put what names a statement before its entries.
                let statement = match &head {
                    Some(statement) => statement,
                    None => head.insert(named(fields.root())?),
                };
                sums.add(&entry);
                sink.entry(kind, statement, entry)?;
            }
            "Bal" => {
                let node = reader.block(tag)?;
                if balances.len() == MAX_BALANCES {
                    return Err(ReadError::TooLarge("the list of balances"));
                }
                balances.extend(read_balance(node.root())?);
            }
            "Id" | "ElctrncSeqNb" | "Acct" => {
                reader.add(&mut fields, tag)?;
            }
            _ => reader.skip()?,
        }
    }
    let mut statement = named(fields.root())?;
    statement.opening = opening(&balances).cloned();
    statement.closing = closing(&balances).cloned();
    check_balances(&statement, &sums)?;
    sink.end(kind, statement, sums.count)
}

/// What names a statement.
fn named(fields: Node<'_>) -> Result<Statement, ReadError> {
    let account = match fields.text_at(&["Acct", "Id", "IBAN"]) {
        Some(iban) => compact(iban),
        None => fields.required(&["Acct", "Id", "Othr", "Id"], "Acct/Id")?,
    };
    Ok(Statement {
        id: fields.required(&["Id"], "Id")?,
        sequence: fields.string_at(&["ElctrncSeqNb"]),
        account,
        opening: None,
        closing: None,
        entries: Vec::new(),
    })
}

/// Booked entries, summed up.
#[derive(Default)]
struct Booked {
    count: u32,
    sum: Decimal,
    /// The currencies that occur, each once.
    currencies: Vec<String>,
}

impl Booked {
    fn add(&mut self, entry: &Entry) {
        if entry.status == EntryStatus::Booked {
            self.count += 1;
            self.sum += entry.direction.signed(entry.amount);
            if !self.currencies.contains(&entry.currency) {
                self.currencies.push(entry.currency.clone());
            }
        }
    }
}

/// Most balances of one statement; seven kinds are in use, each in a few currencies.
const MAX_BALANCES: usize = 256;

/// A balance of booked money; `None` for available, expected and information balances.
fn read_balance(node: Node<'_>) -> Result<Option<Balance>, ReadError> {
    let code = node.text_at(&["Tp", "CdOrPrtry", "Cd"]).unwrap_or_default();
    if !matches!(code, "OPBD" | "PRCD" | "CLBD" | "ITBD") {
        return Ok(None);
    }
    let (amount, currency) = node.at(&["Amt"]).ok_or(ReadError::Missing("Bal/Amt"))?.money("Bal/Amt")?;
    Ok(Some(Balance {
        code: code.to_owned(),
        amount: Direction::read(node)?.signed(amount),
        currency: currency.as_str().to_owned(),
        date: read_date(node, "Dt")?,
    }))
}

/// OPBD, or the closing balance of the statement before, or, on a later page, the first of the interim ones.
fn opening(balances: &[Balance]) -> Option<&Balance> {
    let find = |code| balances.iter().find(|balance| balance.code == code);
    find("OPBD").or_else(|| find("PRCD")).or_else(|| {
        let ends = balances.iter().filter(|b| matches!(b.code.as_str(), "ITBD" | "CLBD")).count();
        find("ITBD").filter(|_| ends >= 2)
    })
}

/// CLBD, or, on a page before the last, the last interim one.
fn closing(balances: &[Balance]) -> Option<&Balance> {
    balances
        .iter()
        .find(|balance| balance.code == "CLBD")
        .or_else(|| balances.iter().rfind(|balance| balance.code == "ITBD"))
}

fn check_balances(statement: &Statement, booked: &Booked) -> Result<(), ReadError> {
    // Reports and notifications often have none or one. A statement without them proves nothing: its reader must not post it.
    let (Some(opening), Some(closing)) = (&statement.opening, &statement.closing) else { return Ok(()) };
    same_currency(&statement.id, &opening.currency, booked.currencies.iter().chain([&closing.currency]))?;
    let found = opening.amount + booked.sum;
    if found != closing.amount {
        return Err(ReadError::Sum {
            element: "Bal (CLBD)",
            of: statement.id.clone(),
            declared: closing.amount,
            found,
        });
    }
    Ok(())
}

fn same_currency<'a>(of: &str, expected: &str, mut found: impl Iterator<Item = &'a String>) -> Result<(), ReadError> {
    match found.find(|currency| *currency != expected) {
        Some(other) => {
            Err(ReadError::Currency { of: of.to_owned(), expected: expected.to_owned(), found: other.clone() })
        }
        None => Ok(()),
    }
}

/// Where entries are read into, one after the other.
#[derive(Default)]
struct Blocks {
    fields: Block,
    detail: Block,
}

fn read_entry(reader: &mut XmlReader<impl Read>, blocks: &mut Blocks) -> Result<Entry, ReadError> {
    let Blocks { fields, detail } = blocks;
    fields.clear();
    let mut raw_batches = Vec::new();
    while let Some(tag) = reader.child()? {
        if tag.name == "NtryDtls" {
            raw_batches.push(read_raw_batch(reader, detail)?);
        } else {
            reader.add(fields, tag)?;
        }
    }
    let fields = fields.root();
    let (amount, currency) = fields.at(&["Amt"]).ok_or(ReadError::Missing("Ntry/Amt"))?.money("Ntry/Amt")?;
    // A choice from .08 on, before that the code itself.
    let status = fields
        .text_at(&["Sts", "Cd"])
        .or_else(|| fields.text_at(&["Sts", "Prtry"]))
        .or_else(|| fields.text_at(&["Sts"]))
        .ok_or(ReadError::Missing("Sts"))?;
    let mut entry = Entry {
        account_servicer_reference: fields.string_at(&["AcctSvcrRef"]),
        entry_reference: fields.string_at(&["NtryRef"]),
        amount,
        currency: currency.as_str().to_owned(),
        direction: Direction::read(fields)?,
        reversal: matches!(fields.text_at(&["RvslInd"]), Some("true" | "1")),
        status: match status {
            "BOOK" => EntryStatus::Booked,
            "PDNG" => EntryStatus::Pending,
            other => EntryStatus::Other(clip(other)),
        },
        booking_date: read_date(fields, "BookgDt")?,
        value_date: read_date(fields, "ValDt")?,
        transaction_code: transaction_code(fields),
        additional: fields.string_at(&["AddtlNtryInf"]),
        charges: charges(fields)?,
        charged: Decimal::ZERO,
        batches: Vec::with_capacity(raw_batches.len()),
    };
    let alone = raw_batches.len() == 1;
    for (mut batch, raw_details) in raw_batches {
        let alone = alone && raw_details.len() == 1;
        for raw in raw_details {
            batch.details.push(raw.complete(&entry, alone)?);
        }
        entry.batches.push(batch);
    }
    entry.charged = check_details(&entry)?;
    Ok(entry)
}

/// The amounts that a detail may give, in the order in which they are asked for.
type Amounts = [Option<(Decimal, Word)>; 4];

/// A detail before its entry is known: amounts and direction may have to come from there.
struct RawDetail {
    detail: Detail,
    amounts: Amounts,
    direction: Option<Direction>,
}

impl RawDetail {
    /// `alone`: the only detail of its entry, whose amount is then the entry's if it has none.
    fn complete(mut self, entry: &Entry, alone: bool) -> Result<Detail, ReadError> {
        let mut amounts = self.amounts.iter().flatten();
        let own = amounts.clone().find(|(_, currency)| *currency == entry.currency.as_str());
        self.detail.amount = match (own, amounts.next()) {
            (Some((amount, _)), _) => *amount,
            (None, None) if alone => entry.amount,
            (None, None) => return Err(ReadError::Missing("TxDtls/Amt")),
            (None, Some((_, currency))) => {
                return Err(ReadError::Currency {
                    of: name_of(entry),
                    expected: entry.currency.clone(),
                    found: currency.as_str().to_owned(),
                });
            }
        };
        self.detail.direction = self.direction.unwrap_or(entry.direction);
        if self.detail.transaction_code.is_none() {
            self.detail.transaction_code.clone_from(&entry.transaction_code);
        }
        Ok(self.detail)
    }
}

fn name_of(entry: &Entry) -> String {
    let reference = entry.account_servicer_reference.as_deref().or(entry.entry_reference.as_deref());
    reference.unwrap_or("entry without reference").to_owned()
}

/// The details of an entry sum to it, where need be together with the charges that it names: how much was taken for those.
fn check_details(entry: &Entry) -> Result<Decimal, ReadError> {
    let mut parts = Decimal::ZERO;
    let mut complete = !entry.batches.is_empty();
    for batch in &entry.batches {
        if batch.details.is_empty() {
            // Booked in one line: its total, if it is given, is its part of the entry.
            match batch.total {
                Some(total) => parts += entry.direction.signed(total),
                None => complete = false,
            }
            continue;
        }
        let found = batch.details.len() as u64;
        if let Some(declared) = batch.transactions.filter(|declared| *declared != found) {
            return Err(ReadError::Count { element: "Btch/NbOfTxs", declared, found });
        }
        let sum: Decimal = batch.details.iter().map(|detail| detail.direction.signed(detail.amount)).sum();
        if let Some(declared) = batch.total.filter(|total| *total != sum.abs()) {
            return Err(ReadError::Sum { element: "Btch/TtlAmt", of: name_of(entry), declared, found: sum.abs() });
        }
        parts += sum;
    }
    let listed = entry.batches.iter().any(|batch| !batch.details.is_empty());
    if !complete && listed {
        // Some parts are listed, others have not even a total: the entry cannot be taken apart.
        return Err(ReadError::Missing("Btch/TtlAmt"));
    }
    let declared = entry.direction.signed(entry.amount);
    if !complete || parts == declared {
        return Ok(Decimal::ZERO);
    }
    let named = [entry.charges, entry.details().map(|detail| detail.charges).sum()];
    match named.into_iter().find(|charges| *charges > Decimal::ZERO && parts - charges == declared) {
        Some(charges) => Ok(charges),
        None => Err(ReadError::Sum { element: "Ntry/Amt", of: name_of(entry), declared, found: parts }),
    }
}

/// What a block says that was taken as charges: positive, where they were charged. Banks name them singly, in sum, or (up
/// to version .03) directly.
fn charges(node: Node<'_>) -> Result<Decimal, ReadError> {
    let mut sum = Decimal::ZERO;
    for block in node.all("Chrgs") {
        let records: Vec<Node<'_>> = block.all("Rcrd").collect();
        let (parts, path) = if !records.is_empty() {
            (records, "Amt")
        } else if block.at(&["TtlChrgsAndTaxAmt"]).is_some() {
            (vec![block], "TtlChrgsAndTaxAmt")
        } else {
            (vec![block], "Amt")
        };
        for part in parts {
            let Some(found) = part.at(&[path]) else { continue };
            let (amount, _) = found.money("Chrgs/Amt")?;
            // Without a direction a charge is charged.
            sum += if part.text_at(&["CdtDbtInd"]) == Some("CRDT") { -amount } else { amount };
        }
    }
    Ok(sum)
}

fn read_raw_batch(reader: &mut XmlReader<impl Read>, detail: &mut Block) -> Result<(Batch, Vec<RawDetail>), ReadError> {
    let mut batch = Batch { message_id: None, batch_id: None, transactions: None, total: None, details: Vec::new() };
    let mut details = Vec::new();
    while let Some(tag) = reader.child()? {
        match tag.name.as_str() {
            "Btch" => {
                let node = reader.block(tag)?;
                let node = node.root();
                batch.message_id = node.string_at(&["MsgId"]);
                batch.batch_id = node.string_at(&["PmtInfId"]);
                batch.transactions = node.text_at(&["NbOfTxs"]).map(|text| count(text, "Btch/NbOfTxs")).transpose()?;
                batch.total = node.text_at(&["TtlAmt"]).map(|text| amount(text, "Btch/TtlAmt")).transpose()?;
            }
            "TxDtls" => {
                reader.fill(detail, tag)?;
                details.push(read_raw_detail(detail.root())?);
            }
            _ => reader.skip()?,
        }
    }
    Ok((batch, details))
}

fn read_raw_detail(node: Node<'_>) -> Result<RawDetail, ReadError> {
    let references = node.at(&["Refs"]);
    let reference = |name| references?.text_at(&[name]).filter(|text| *text != NOT_PROVIDED).map(str::to_owned);
    // What was booked first; what was ordered last (it may differ by charges, and then the sums do not fit).
    let money = |path: &[&str]| node.at(path).map(|amount| amount.money("TxDtls/Amt")).transpose();
    let amounts = [
        money(&["Amt"])?,
        money(&["AmtDtls", "TxAmt", "Amt"])?,
        money(&["AmtDtls", "CntrValAmt", "Amt"])?,
        money(&["AmtDtls", "InstdAmt", "Amt"])?,
    ];
    let direction = node.at(&["CdtDbtInd"]).map(|_| Direction::read(node)).transpose()?;
    let remittance = || node.all("RmtInf");
    Ok(RawDetail {
        amounts,
        direction,
        detail: Detail {
            end_to_end_id: reference("EndToEndId"),
            instruction_id: reference("InstrId"),
            transaction_id: reference("TxId"),
            message_id: reference("MsgId"),
            batch_id: reference("PmtInfId"),
            account_servicer_reference: reference("AcctSvcrRef"),
            amount: Decimal::ZERO,
            charges: charges(node)?,
            direction: direction.unwrap_or(Direction::Credit),
            debtor: party(node, "Dbtr", "DbtrAcct"),
            creditor: party(node, "Cdtr", "CdtrAcct"),
            structured: remittance()
                .flat_map(|block| block.all("Strd"))
                .filter_map(|block| block.string_at(&["CdtrRefInf", "Ref"]))
                .collect(),
            unstructured: remittance()
                .flat_map(|block| block.all("Ustrd"))
                .filter_map(Node::text)
                .map(str::to_owned)
                .collect(),
            return_reason: node
                .string_at(&["RtrInf", "Rsn", "Cd"])
                .or_else(|| node.string_at(&["RtrInf", "Rsn", "Prtry"])),
            transaction_code: transaction_code(node),
        },
    })
}

fn party(node: Node<'_>, party: &str, account: &str) -> Party {
    let name = node
        .string_at(&["RltdPties", party, "Pty", "Nm"])
        .or_else(|| node.string_at(&["RltdPties", party, "Nm"]))
        .or_else(|| node.string_at(&["RltdPties", party, "Agt", "FinInstnId", "Nm"]));
    let iban = node.text_at(&["RltdPties", account, "Id", "IBAN"]).map(compact);
    Party { name, iban }
}

fn transaction_code(node: Node<'_>) -> Option<String> {
    let code = |path: &[&str]| node.at(&["BkTxCd"])?.text_at(path);
    match (code(&["Domn", "Cd"]), code(&["Domn", "Fmly", "Cd"]), code(&["Domn", "Fmly", "SubFmlyCd"])) {
        (Some(domain), Some(family), Some(sub)) => Some(format!("{domain}-{family}-{sub}")),
        _ => code(&["Prtry", "Cd"]).map(str::to_owned),
    }
}

fn read_date(node: Node<'_>, element: &'static str) -> Result<Option<Date>, ReadError> {
    let text = node
        .text_at(&[element, "Dt"])
        .or_else(|| node.text_at(&[element, "DtTm"]))
        .or_else(|| node.text_at(&[element]));
    text.map(|text| Date::from_iso(text).map_err(|_| ReadError::Invalid { element, value: clip(text) })).transpose()
}

impl Direction {
    fn read(node: Node<'_>) -> Result<Self, ReadError> {
        match node.text_at(&["CdtDbtInd"]) {
            Some("CRDT") => Ok(Self::Credit),
            Some("DBIT") => Ok(Self::Debit),
            Some(other) => Err(ReadError::Invalid { element: "CdtDbtInd", value: clip(other) }),
            None => Err(ReadError::Missing("CdtDbtInd")),
        }
    }
}
