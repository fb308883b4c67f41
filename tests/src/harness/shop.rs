//! A gate before a small upstream, and the receipts of a hub that exists on paper only: whatever the gate does with them,
//! it does without a hub.

use std::path::Path;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::commit::{Commit, SignedCertificate, group_item};
use weir_protocol::hash::sha256;
use weir_protocol::http::{Challenge, Credential};
use weir_protocol::id::{AccountId, HubId, PaymentId};
use weir_protocol::keys::SecretKey;
use weir_protocol::merkle::Tree;
use weir_protocol::payment::{Payment, receipt_leaf};
use weir_protocol::receipt::{Receipt, ReceiptFile};

/// What the upstream says to everything.
pub const ANSWER: &str = "a small answer, as an API gives it";
/// The longest head that is read.
const MAX_HEAD: usize = 64 * 1024;

/// A hub's keys, without the hub.
#[derive(Debug)]
pub struct PaperHub {
    identity: SecretKey,
    signing: SecretKey,
    certificate: SignedCertificate,
}

impl Default for PaperHub {
    fn default() -> Self {
        let key = |fill: u8| SecretKey::from_bytes(&[fill; 32]).unwrap();
        let (identity, signing) = (key(1), key(2));
        let certificate = Certificate { key: signing.public(), not_before: Time(1), not_after: Time(u64::MAX) };
        let digest = Act::Certificate(certificate).digest(&HubId(identity.public()));
        let certificate = SignedCertificate { certificate, signature: identity.sign(&digest) };
        Self { identity, signing, certificate }
    }
}

impl PaperHub {
    /// Its id.
    pub fn id(&self) -> HubId {
        HubId(self.identity.public())
    }

    /// Whom everybody pays.
    pub fn payee() -> AccountId {
        AccountId(SecretKey::from_bytes(&[3; 32]).unwrap().public())
    }

    /// What a payer shows who paid so much for a demand now. The receipt is as deep as those of a busy hub.
    pub fn pay(&self, challenge: &Challenge, amount: Amount) -> Credential {
        let request = challenge.charge().unwrap();
        let payment = Payment { payee: request.recipient, amount, reference: challenge.reference() };
        let payment_id = PaymentId(sha256(challenge.id.as_bytes()).0);
        let numbered = |count: u32| (1..count).map(|at| sha256(&at.to_le_bytes()));
        let leaves = Tree::new(
            [receipt_leaf(&payment_id, &payment, request.currency)].into_iter().chain(numbered(1024)).collect(),
        );
        let head = sha256(b"head");
        let items = Tree::new([group_item(&head, 1024, &leaves.root())].into_iter().chain(numbered(1024)).collect());
        let (history, time) = (sha256(b"history"), now());
        let commit = Commit { hub: self.id(), chain: 1, number: 1, time, history, items: 1024, root: items.root() };
        let receipt = Receipt {
            payment_id,
            leaf_path: leaves.path(0).unwrap(),
            head,
            group_path: items.path(0).unwrap(),
            chain: 1,
            number: 1,
            time,
            history,
            signature: self.signing.sign(&commit.id()),
        };
        let file = ReceiptFile {
            format: ReceiptFile::FORMAT.to_owned(),
            hub: self.id(),
            payee: request.recipient,
            amount,
            currency: request.currency,
            reference: payment.reference,
            certificate: self.certificate,
            receipt,
        };
        Credential::new(challenge.clone(), &file)
    }

    /// A configuration: `/paid/…` costs `price`, everything else nothing. A busy machine is waited for.
    pub fn configuration(&self, folder: &Path, upstream: &str, price: &str) -> std::io::Result<()> {
        let text = format!(
            "listen = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\nrealm = \"shop.example\"\npayee = \"{}\"\n\
             hub = \"{}\"\n\n[timeouts]\nconnect = \"10m\"\nfirst_byte = \"10m\"\n\n\
             [[route]]\nmatch = \"/paid/{{id}}\"\nprice = \"{price}\"\n",
            Self::payee(),
            self.id(),
        );
        std::fs::write(folder.join("gate.toml"), text)
    }
}

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// An upstream that answers everything alike, on a free port.
pub async fn upstream() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = Connection { stream, buffer: Vec::new() };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
                while let Ok(head) = connection.head().await {
                    if head.is_empty() || connection.stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// A connection of HTTP/1.1 that is kept.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Connection {
    /// To an address.
    pub async fn to(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Up to the end of a head; empty at the end of the stream.
    async fn head(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.buffer.split_off(at + 4);
                let head = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8(head).context("a head that is not text");
            }
            ensure!(self.buffer.len() < MAX_HEAD, "a head that does not end");
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(String::new());
            }
        }
    }

    /// Asks and waits for the whole answer, which must have a length.
    pub async fn get(&mut self, path: &str, headers: &str) -> anyhow::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let head = self.head().await?;
        let status = head.get(9..12).and_then(|status| status.parse().ok()).context("no answer")?;
        let answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").context("no length")?.parse()?;
        while self.buffer.len() < length {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the answer broke off");
        }
        let rest = self.buffer.split_off(length);
        let body = std::mem::replace(&mut self.buffer, rest);
        Ok(Answer { body: String::from_utf8(body)?, ..answer })
    }

    /// What is asked for a path.
    pub async fn demand(&mut self, path: &str) -> anyhow::Result<Challenge> {
        let answer = self.get(path, "").await?;
        ensure!(answer.status == 402, "{} in place of 402", answer.status);
        Ok(Challenge::from_header(answer.header("www-authenticate").context("no challenge")?)?)
    }
}

/// The line that shows a credential.
pub fn showing(credential: &Credential) -> String {
    format!("authorization: {}\r\n", credential.to_header())
}
