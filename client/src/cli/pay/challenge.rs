//! `pay --challenge`: a demand on the web, paid from any machine; the credential is printed, or posted to the page that
//! waits for it. The challenge is the idempotency key: asked again with the same one, the same credential is printed.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use weir_client::fetch::{Demand, DemandError, Dialects, Rules};
use weir_client::protocol::amount::{Amount, Currency};
use weir_client::protocol::http::x402::{PaymentPayload, PaymentRequired};
use weir_client::protocol::http::{Challenge, Credential, header};
use weir_client::protocol::lane::payer::Order;
use weir_client::protocol::receipt::ReceiptFile;

use super::super::context::{Context, Use, now};
use super::super::failure::{Failure, RETRY};
use super::super::printer::{self, confirm, say};
use super::super::purse;
use super::super::text::plain;
use super::{Choice, Making, Orders, PayArgs, PaymentReport, earlier, make};

/// Longest wait for a page's server.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of what a claim's address says.
const MAX_CLAIM_BYTES: usize = 64 * 1024;
/// What the path of a page's claim holds.
const CLAIM: &str = "/.weir/claim/";

/// What a claim's address says.
#[derive(Debug, Deserialize)]
struct Claim {
    /// The value of `WWW-Authenticate`.
    challenge: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    url: Option<String>,
    /// Where the credential goes; the address itself when it is not said.
    #[serde(default, rename = "claim")]
    place: Option<String>,
}

/// A demand, from wherever it came.
struct Found {
    challenge: Challenge,
    dialects: Dialects,
    title: Option<String>,
    url: Option<String>,
    claim: Option<Url>,
}

#[derive(Debug, Serialize)]
struct ChallengeReport {
    #[serde(flatten)]
    payment: PaymentReport,
    challenge_id: String,
    realm: String,
    /// The value of `Authorization`, or of the header that the challenge names; null with `--dry-run`.
    credential: Option<String>,
    /// The header that it goes into.
    credential_header: String,
    /// The value of `PAYMENT-SIGNATURE`; null where the demand cannot be said in x402.
    x402: Option<String>,
    /// Whether the page that waits has it.
    claimed: bool,
}

impl ChallengeReport {
    fn show(&self) -> String {
        let mut text = self.payment.show();
        let mut facts = vec![("for", plain(&self.realm))];
        if self.claimed {
            facts.push(("claimed", "the page opens by itself".to_owned()));
        } else if let Some(credential) = &self.credential {
            facts.push(("show", format!("{}: {credential}", self.credential_header)));
        }
        text.push('\n');
        text.push_str(&printer::facts(facts));
        text
    }
}

/// Pays a demand.
pub(super) async fn pay(context: &Context, args: &PayArgs, text: &str, deadline_ms: u64) -> Result<(), Failure> {
    let web = purse::web(args.cacert.as_ref(), Some(PATIENCE))?;
    let found = find(&web, text.trim()).await?;
    let hub = context.look()?.hub().hub;
    let (demand, over) = match judge(&found, hub) {
        Ok(demand) => (demand, false),
        // What was paid while it could be is still proven.
        Err(DemandError::Expired) => {
            let request = found.challenge.charge().map_err(DemandError::Foreign)?;
            let expires_at = found.challenge.expires_at().map_err(DemandError::Foreign)?;
            let challenge = found.challenge.clone();
            (Demand { challenge, request, expires_at, dialects: found.dialects }, true)
        }
        Err(error) => return Err(error.into()),
    };
    let (price, currency, payee) = (demand.price(), demand.currency(), demand.request.recipient);
    let reference = demand.challenge.reference();
    let order = Order { payee, amount: price, reference, deadline: None };
    let client = context.client(Use::Alone).await?;
    let earlier = earlier(&client, &Orders::of(context.home()), &order)?;
    if earlier.is_none() && !args.dry_run {
        if over {
            client.shut_down().await;
            return Err(Failure::from(DemandError::Expired).hint("reload the page for a new demand; nothing was paid"));
        }
        if let Err(failure) = agree(args, &found, &demand, (price, currency)) {
            client.shut_down().await;
            return Err(failure);
        }
    }
    let choice = Choice { channel: args.channel.clone(), lane: args.lane.clone(), currency: Some(currency) };
    let left_ms = demand.expires_at.0.saturating_sub(now().0);
    let making = Making {
        order,
        earlier,
        choice,
        deadline_ms: deadline_ms.min(left_ms).max(1),
        dry_run: args.dry_run,
        again: "it may be paid: the same command with the same challenge says so, and never pays twice".to_owned(),
        retry: "try the same command again".to_owned(),
    };
    let made = make(context, client, making).await?;
    let receipt: Option<ReceiptFile> = made.paid.as_ref().map(weir_client::Paid::receipt).transpose()?;
    let credential = receipt.map(|receipt| Credential::new(demand.challenge.clone(), &receipt));
    let mut report = ChallengeReport {
        payment: made.report,
        challenge_id: demand.challenge.id.clone(),
        realm: demand.challenge.realm.clone(),
        credential: credential.as_ref().map(Credential::to_header),
        credential_header: weir_client::fetch::demand::credential_header(&demand.challenge)?.to_string(),
        x402: credential.as_ref().and_then(|one| PaymentPayload::of(one).ok()).map(|payload| payload.to_header()),
        claimed: false,
    };
    let mut unclaimed = None;
    if let (Some(place), Some(credential)) = (&found.claim, &credential) {
        match post(&web, place, credential).await {
            Ok(()) => report.claimed = true,
            Err(failure) => unclaimed = Some(failure),
        }
    }
    context.printer.print(&report, ChallengeReport::show)?;
    match unclaimed {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn judge(found: &Found, hub: weir_client::protocol::id::HubId) -> Result<Demand, DemandError> {
    Demand::single(found.challenge.clone(), found.dialects, hub, &Rules::default(), now())
}

/// Shows what is bought, and asks; below `--max-price` or with `--yes`, only shows.
fn agree(args: &PayArgs, found: &Found, demand: &Demand, (price, currency): (Amount, Currency)) -> Result<(), Failure> {
    let mut facts = vec![("price", format!("{price} {currency}"))];
    let title = found.title.as_ref().or(demand.request.description.as_ref());
    facts.extend(title.map(|title| ("for", plain(title))));
    facts.push(("from", plain(&demand.challenge.realm)));
    facts.extend(found.url.as_ref().map(|url| ("at", plain(url))));
    facts.push(("payee", demand.request.recipient.to_string()));
    if demand.request.details.metered {
        facts.push(("metered", "the price is the most; what is not used stays there as a balance".to_owned()));
    }
    say(&printer::facts(facts));
    if let Some(most) = args.max_price
        && price > most
    {
        return Err(anyhow!("nothing was paid: the price, {price}, is above `--max-price`, {most}").into());
    }
    if args.yes || args.max_price.is_some() { Ok(()) } else { confirm("Pay this?") }
}

async fn find(web: &reqwest::Client, text: &str) -> Result<Found, Failure> {
    let bare = |challenge, dialects| Found { challenge, dialects, title: None, url: None, claim: None };
    if text.starts_with("http://") || text.starts_with("https://") {
        let url = Url::parse(text).map_err(|error| Failure::usage(anyhow!("`--challenge` is no address: {error}")))?;
        return if url.path().contains(CLAIM) { claim(web, url).await } else { demanded(web, url).await };
    }
    let both = Dialects { payment: true, x402: true };
    if text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("payment ")) {
        let challenge = Challenge::from_header(text).map_err(|error| Failure::usage(error.into()))?;
        return Ok(bare(challenge, both));
    }
    let required = PaymentRequired::from_header(text).and_then(|required| required.requirements());
    let challenge = required.and_then(|wanted| wanted.challenge()).map_err(|error| {
        let error = anyhow::Error::new(error).context("`--challenge` is neither a demand nor an address");
        Failure::usage(error).hint("expected `Payment id=…`, a `PAYMENT-REQUIRED` value, or `https://…`")
    })?;
    Ok(bare(challenge, both))
}

/// What a page waits for.
async fn claim(web: &reqwest::Client, url: Url) -> Result<Found, Failure> {
    let asked = web.get(url.clone()).header("accept", "application/json").send().await;
    let answer = asked.map_err(|error| Failure::from(error).exit_with(RETRY))?;
    if !answer.status().is_success() {
        let error = anyhow!("`{url}` answers {}", answer.status());
        return Err(Failure::from(error).hint("the page may be over: reload it for a new address; nothing was paid"));
    }
    let body = bounded(answer).await?;
    let claim: Claim = serde_json::from_slice(&body).with_context(|| format!("`{url}` is no claim of a page"))?;
    let challenge = Challenge::from_header(&claim.challenge).context("the page's demand cannot be read")?;
    // The credential goes nowhere but to the server that was named on the command line.
    let place = match &claim.place {
        Some(text) => url.join(text).context("the page names no address to claim at")?,
        None => url.clone(),
    };
    if place.origin() != url.origin() {
        return Err(anyhow!("the page wants its payment shown to another server, `{place}`; nothing was paid").into());
    }
    let dialects = Dialects { payment: true, x402: true };
    Ok(Found { challenge, dialects, title: claim.title, url: claim.url, claim: Some(place) })
}

/// What any address demands.
async fn demanded(web: &reqwest::Client, url: Url) -> Result<Found, Failure> {
    let asked = web.get(url.clone()).header(header::ACCEPT_PAYMENT, "weir").send().await;
    let answer = asked.map_err(|error| Failure::from(error).exit_with(RETRY))?;
    if answer.status() != reqwest::StatusCode::PAYMENT_REQUIRED {
        return Err(anyhow!("`{url}` demands nothing: it answers {}", answer.status()).into());
    }
    let mut reason = None;
    for value in answer.headers().get_all(header::WWW_AUTHENTICATE) {
        match value.to_str().map(Challenge::from_header) {
            Ok(Ok(challenge)) => {
                let dialects = Dialects { payment: true, x402: true };
                return Ok(Found { challenge, dialects, title: None, url: Some(url.to_string()), claim: None });
            }
            Ok(Err(error)) => reason = Some(error),
            Err(_) => {}
        }
    }
    let x402 = answer.headers().get(header::PAYMENT_REQUIRED).and_then(|value| value.to_str().ok());
    let x402 = x402.and_then(|text| PaymentRequired::from_header(text).ok());
    if let Some(challenge) = x402.and_then(|required| required.requirements().ok()?.challenge().ok()) {
        let dialects = Dialects { payment: false, x402: true };
        return Ok(Found { challenge, dialects, title: None, url: Some(url.to_string()), claim: None });
    }
    Err(reason.map_or(DemandError::None, DemandError::Foreign).into())
}

/// Shows the credential to the page that waits.
async fn post(web: &reqwest::Client, place: &Url, credential: &Credential) -> Result<(), Failure> {
    let body = serde_json::to_vec(credential)?;
    let hint = "it is paid: the same command again shows it again, and pays nothing";
    let sent = web.post(place.clone()).header("content-type", "application/json").body(body).send().await;
    let answer = sent.map_err(|error| Failure::from(error).hint(hint).exit_with(RETRY))?;
    if answer.status().is_success() {
        return Ok(());
    }
    let status = answer.status();
    let body = bounded(answer).await.unwrap_or_default();
    let detail = serde_json::from_slice::<weir_client::protocol::http::problem::Problem>(&body);
    let detail = detail.ok().and_then(|problem| problem.detail).map(|text| plain(&text)).unwrap_or_default();
    let error = anyhow!("it is paid, and the page does not take it: {status} {detail}");
    Err(Failure::from(error).hint(hint).exit_with(RETRY))
}

async fn bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_CLAIM_BYTES {
            return Err(anyhow!("the server says more than {MAX_CLAIM_BYTES} bytes").into());
        }
    }
    Ok(body)
}
