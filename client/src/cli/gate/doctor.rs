//! `gate doctor`: walks through a sale as a payer does, and says in plain words which line is wrong.

mod look;

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HeaderMap, HeaderName,
    HeaderValue, ORIGIN,
};
use http::{Method, StatusCode};
use reqwest::Url;
use serde::Serialize;
use weir_client::fetch::pay::Attempt;
use weir_client::fetch::{FetchError, Paid, middleware, pay};
use weir_client::protocol::amount::Amount;
use weir_client::protocol::http::x402::PaymentPayload;
use weir_client::protocol::http::{Challenge, ChargeRequest, Credential, header};

use super::super::context::{Context, now};
use super::super::failure::{Failure, UNKNOWN};
use super::super::printer;
use super::super::purse::{self, PurseArgs, Report, ReportLine};
use look::{Finding, Seen};

/// Most bytes of an answer's body that are read.
const BODY_BYTES: usize = 256 * 1024;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the home is held after the payment.
const REST: Duration = Duration::from_millis(200);
/// What asks for another resource under the same route.
const OTHER_QUERY: &str = "weir-doctor";

#[derive(Debug, Args)]
#[command(
    after_help = "It asks for the address, checks the demand in each dialect, pays it once, and sees that the answer comes with its receipt, that the same request is not charged again, and that changed credentials open nothing.\nExit codes: 0 all is well, 1 a step failed, 2 usage, 4 it may be paid (the same command asks).\n\nExamples:\n  weir gate doctor --url https://news.example/articles/1 --dry-run\n  weir gate doctor --url https://news.example/articles/1 --budget 0.10 --home ./payer\n  weir gate doctor --url https://api.example/v1/weather --origin https://app.example"
)]
pub(in crate::cli) struct DoctorArgs {
    /// An address that is sold.
    #[arg(long, value_name = "URL")]
    url: Url,
    /// The most that is paid, in all.
    #[arg(long, value_name = "AMOUNT", default_value = "0.10")]
    budget: Amount,
    /// Stop before paying. Needs no home.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Also see that scripts of this origin may pay from a browser.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    origin: Option<String>,
    #[command(flatten)]
    purse: PurseArgs,
}

fn origin(text: &str) -> Result<String, &'static str> {
    let read = Url::parse(text).map_err(|_| "expected an origin, such as `https://app.example`")?;
    let is_one = matches!(read.scheme(), "http" | "https") && read.origin().ascii_serialization() == text;
    is_one.then(|| text.to_owned()).ok_or("expected scheme and host alone, such as `https://app.example`")
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Told {
    ok: bool,
    steps: Vec<Step>,
}

impl Told {
    fn show(&self) -> String {
        let rows = self.steps.iter().map(|step| {
            let mark = if step.ok { "ok" } else { "WRONG" };
            [mark.to_owned(), step.name.to_owned(), step.detail.clone()]
        });
        let end = if self.ok { "all is well" } else { "something is wrong" };
        format!("{}\n{end}", printer::table(["", "step", "found"], rows, ""))
    }
}

#[derive(Debug, Default)]
struct Steps(Vec<Step>);

impl Steps {
    /// Notes what was found; whether it is right.
    fn note(&mut self, name: &'static str, finding: Finding) -> bool {
        let (ok, detail) = match finding {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        self.0.push(Step { name, ok, detail });
        ok
    }
}

/// A demand, and the answer that it came in.
struct Demanded {
    seen: Seen,
    challenge: Challenge,
    request: ChargeRequest,
    x402: bool,
}

/// What sends.
struct Walk<'a> {
    web: reqwest::Client,
    url: &'a Url,
    steps: Steps,
}

/// Walks, prints what was found, and fails when something is wrong.
pub(in crate::cli) async fn doctor(context: &Context, args: &DoctorArgs) -> Result<(), Failure> {
    if !matches!(args.url.scheme(), "http" | "https") {
        return Err(Failure::usage(anyhow!("`{}` is neither `http` nor `https`", args.url)));
    }
    let web = purse::web(args.purse.cacert.as_ref(), Some(PATIENCE))?;
    let mut walk = Walk { web, url: &args.url, steps: Steps::default() };
    let unknown = match walk.through(context, args).await {
        Ok(unknown) => unknown,
        Err(failure) => {
            // What was found until then is told all the same.
            walk.steps.note("broken-off", Err(failure.told()));
            false
        }
    };
    let steps = walk.steps.0;
    let told = Told { ok: steps.iter().all(|step| step.ok), steps };
    context.printer.print(&told, Told::show)?;
    match (told.ok, unknown) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::said().exit_with(UNKNOWN)),
        (false, false) => Err(Failure::said()),
    }
}

impl Walk<'_> {
    /// All of it. True: nobody knows yet whether it was paid.
    async fn through(&mut self, context: &Context, args: &DoctorArgs) -> Result<bool, Failure> {
        match self.unpaid(args.origin.as_deref()).await? {
            Some(demanded) if !args.dry_run => self.pay(context, args, &demanded).await,
            _ => Ok(false),
        }
    }

    async fn ask(&self, method: Method, url: &Url, headers: HeaderMap) -> Result<Seen, reqwest::Error> {
        let mut answer = self.web.request(method, url.clone()).headers(headers).send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_BYTES {
                break;
            }
        }
        Ok(Seen { status, headers, body })
    }

    async fn get(&self, fields: &[(HeaderName, &str)]) -> Result<Seen, Failure> {
        let headers = fields.iter().map(|(name, text)| Ok((name.clone(), HeaderValue::from_str(text)?)));
        let headers: Result<HeaderMap, http::header::InvalidHeaderValue> = headers.collect();
        Ok(self.ask(Method::GET, self.url, headers?).await?)
    }

    // ---- without paying ---------------------------------------------------------------------------------------------

    /// Looks at what somebody gets who has not paid. None: there is nothing to pay.
    async fn unpaid(&mut self, origin: Option<&str>) -> Result<Option<Demanded>, Failure> {
        let seen = match self.ask(Method::GET, self.url, program()).await {
            Ok(seen) => seen,
            Err(error) => {
                let error = Failure::from(error).told();
                self.steps.note("unpaid", Err(format!("no answer: {error}")));
                return Ok(None);
            }
        };
        if !self.steps.note("unpaid", look::unpaid(&seen)) {
            return Ok(None);
        }
        let (challenge, request) = match look::payment(&seen.headers) {
            Ok(found) => found,
            Err(wrong) => {
                self.steps.note("payment", Err(wrong));
                return Ok(None);
            }
        };
        let said = format!("{} {} to {} as `{}`", request.amount, request.currency, request.recipient, challenge.realm);
        self.steps.note("payment", Ok(said));
        let dialects = self.discovery(&challenge, &request).await;
        let speaks = |name: &str| dialects.as_ref().map(|all| all.iter().any(|one| one == name));
        let x402 = look::x402(&seen.headers, &challenge, speaks("x402"));
        let speaks_x402 = x402.is_ok() && seen.headers.contains_key(header::PAYMENT_REQUIRED);
        self.steps.note("x402", x402);
        self.steps.note("crawler", look::crawler(&seen.headers, &request, speaks("crawler")));
        self.steps.note("body", look::body(&seen, &request));
        self.steps.note("expiry", look::expiry(&challenge, &request, now()));
        let second = self.get(&[(ACCEPT, "application/json")]).await?;
        let other = look::payment(&second.headers).ok().map(|(other, _)| other);
        self.steps.note("cache", look::demand_cache(&seen.headers, &challenge, other.as_ref()));
        self.steps.note("sizes", look::sizes(&seen.headers));
        let page = self.get(&[(ACCEPT, "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")]).await?;
        self.steps.note("page", look::page(&page));
        let head = self.ask(Method::HEAD, self.url, program()).await?;
        self.steps.note("head", on_head(&head, &request));
        if let Some(origin) = origin {
            self.cors(origin).await?;
        }
        Ok(Some(Demanded { seen, challenge, request, x402: speaks_x402 }))
    }

    /// Compares the demand with `/.well-known/weir`, where the gate answers there: the dialects that it speaks.
    async fn discovery(&mut self, challenge: &Challenge, request: &ChargeRequest) -> Option<Vec<String>> {
        let url = self.url.join("/.well-known/weir").ok()?;
        let seen = self.ask(Method::GET, &url, program()).await.ok().filter(|seen| seen.status == StatusCode::OK);
        let told: Option<serde_json::Value> = seen.and_then(|seen| serde_json::from_slice(&seen.body).ok());
        let Some(told) = told else {
            let detail = "`/.well-known/weir` is not there: the web server does not pass it to the gate, and programs cannot look up \
                          who is paid";
            self.steps.note("discovery", Ok(detail.to_owned()));
            return None;
        };
        let text = |name: &str| told.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let asked = [
            ("payee", request.recipient.to_string()),
            ("hub", request.details.hub.to_string()),
            ("realm", challenge.realm.clone()),
        ];
        let wrong = asked.into_iter().find(|(name, asked)| text(name) != *asked);
        self.steps.note(
            "discovery",
            match wrong {
                None => Ok("`/.well-known/weir` names the same payee, hub and realm".to_owned()),
                Some((name, asked)) => Err(format!(
                    "`/.well-known/weir` names the {name} `{}`, the demand `{asked}`: two gates answer here",
                    text(name)
                )),
            },
        );
        let dialects = told.get("dialects").and_then(serde_json::Value::as_array)?;
        Some(dialects.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect())
    }

    async fn cors(&mut self, origin: &str) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin)?);
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"));
        let wanted = HeaderValue::from_static("authorization,idempotency-key,payment-signature");
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, wanted);
        let preflight = self.ask(Method::OPTIONS, self.url, headers).await?;
        self.steps.note("preflight", look::preflight(&preflight, origin));
        let seen = self.get(&[(ORIGIN, origin), (ACCEPT, "application/json")]).await?;
        self.steps.note("cors", look::exposed(&seen.headers, origin));
        Ok(())
    }

    // ---- paying -----------------------------------------------------------------------------------------------------

    /// Pays, and looks at what somebody gets who has. True: nobody knows yet whether it was paid.
    async fn pay(&mut self, context: &Context, args: &DoctorArgs, demanded: &Demanded) -> Result<bool, Failure> {
        let mut report = Report::open(args.purse.report.as_ref())?;
        let made = match purse::payer(context, &args.purse, Some(args.budget), Some(args.budget), None, REST) {
            Ok(made) => made,
            Err(failure) => {
                self.steps.note("pay", Err(failure.told()));
                return Ok(false);
            }
        };
        let request = reqwest::Request::new(Method::GET, self.url.clone());
        let target = middleware::target(&request);
        let mut attempt = made.payer.attempt(target.clone(), None);
        // All that follows is one logical request.
        attempt.set_key(format!("doctor-{}", demanded.challenge.id));
        let bought = attempt.demanded(&demanded.seen.headers, None).await;
        made.purse.close().await;
        match bought {
            Ok(pay::Next::Show) => {}
            Ok(pay::Next::Pass(error)) => {
                self.steps.note("pay", Err(format!("this demand cannot be met: {error}")));
                return Ok(false);
            }
            Err(error) => {
                let unknown = matches!(error, FetchError::Unknown { .. });
                let hint = match &error {
                    FetchError::Budget(_) => "; `--budget` raises the limit",
                    FetchError::Unknown { .. } => "; the same command asks, and never pays twice",
                    _ => "",
                };
                self.steps.note("pay", Err(format!("{error}{hint}")));
                return Ok(unknown);
            }
        }
        let (shown, credential) = match shown(&attempt) {
            Ok(shown) => shown,
            Err(wrong) => {
                self.steps.note("pay", Err(wrong));
                return Ok(false);
            }
        };
        let first = self.ask(Method::GET, self.url, shown.clone()).await?;
        let paid = match first.status {
            StatusCode::PAYMENT_REQUIRED => None,
            status => attempt.answered(status, &first.headers).await,
        };
        report.write(&ReportLine::new(&target, Some(first.status.as_u16()), paid.as_ref(), None))?;
        if self.steps.note("served", served(&first, &demanded.request, paid.as_ref())) {
            self.paid(demanded, &shown, &credential).await?;
        }
        Ok(false)
    }

    /// What the same payment opens, and what it must not.
    async fn paid(&mut self, demanded: &Demanded, shown: &HeaderMap, credential: &Credential) -> Result<(), Failure> {
        let again = self.ask(Method::GET, self.url, shown.clone()).await?;
        self.steps.note("again", not_charged(&again, "the same request"));
        if demanded.x402
            && let Ok(payload) = PaymentPayload::of(credential)
        {
            let mut other = shown.clone();
            other.remove(AUTHORIZATION);
            other.remove(header::PAYMENT_AUTHORIZATION);
            other.insert(HeaderName::from_static(header::PAYMENT_SIGNATURE), value(&payload.to_header())?);
            let seen = self.ask(Method::GET, self.url, other).await?;
            let found = not_charged(&seen, "the same in x402").and_then(|detail| {
                let answered = seen.headers.contains_key(header::PAYMENT_RESPONSE);
                answered.then_some(detail).ok_or_else(|| {
                    "no `PAYMENT-RESPONSE` on an answer to x402: the web server keeps it from the payer".to_owned()
                })
            });
            self.steps.note("again-x402", found);
        }
        let mut forged = credential.clone();
        forged.payload.receipt = changed(&forged.payload.receipt);
        self.forged("forged-receipt", &forged, "a changed receipt").await?;
        let mut forged = credential.clone();
        forged.challenge.request = changed(&forged.challenge.request);
        self.forged("forged-demand", &forged, "a changed demand").await?;
        // A balance may pay for anything here; a payment of the price is for one thing.
        if credential.payload.amount == demanded.request.amount && !demanded.request.details.metered {
            let mut other = self.url.clone();
            other.query_pairs_mut().append_pair(OTHER_QUERY, "1");
            let mut headers = shown.clone();
            headers.remove(header::IDEMPOTENCY_KEY);
            let seen = self.ask(Method::GET, &other, headers).await?;
            self.steps.note("other-address", look::refused(&seen, "another address for the same payment"));
        }
        Ok(())
    }

    async fn forged(&mut self, name: &'static str, credential: &Credential, what: &str) -> Result<(), Failure> {
        let mut headers = program();
        let field = credential.challenge.credential_header().unwrap_or(header::AUTHORIZATION).to_ascii_lowercase();
        let field = if field == header::PAYMENT_AUTHORIZATION { field.as_str() } else { header::AUTHORIZATION };
        headers.insert(HeaderName::try_from(field)?, value(&credential.to_header())?);
        let seen = self.ask(Method::GET, self.url, headers).await?;
        self.steps.note(name, look::refused(&seen, what));
        Ok(())
    }
}

/// The headers of a program that shows nothing.
fn program() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"))])
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The headers that show what was bought, and the credential in them.
fn shown(attempt: &Attempt) -> Result<(HeaderMap, Credential), String> {
    let mut headers = program();
    attempt.credential(&mut headers).map_err(|error| error.to_string())?;
    if let Some(key) = attempt.key().and_then(|key| HeaderValue::from_str(key).ok()) {
        headers.insert(HeaderName::from_static(header::IDEMPOTENCY_KEY), key);
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let payment = [header::AUTHORIZATION, header::PAYMENT_AUTHORIZATION].into_iter().find_map(text);
    let credential = match payment {
        Some(text) => Credential::from_header(text).and_then(Result::ok),
        None => text(header::PAYMENT_SIGNATURE)
            .and_then(|text| PaymentPayload::from_header(text).and_then(|payload| payload.credential()).ok()),
    };
    let credential = credential.ok_or_else(|| "what was paid cannot be shown".to_owned())?;
    Ok((headers, credential))
}

fn on_head(seen: &Seen, request: &ChargeRequest) -> Finding {
    if seen.status != StatusCode::PAYMENT_REQUIRED {
        return Err(format!("`HEAD` is answered {} where `GET` is answered 402", seen.status));
    }
    let (_, head) = look::payment(&seen.headers).map_err(|error| format!("`HEAD`: {error}"))?;
    if (head.amount, head.currency) != (request.amount, request.currency) {
        return Err(format!("`HEAD` costs {} {}, `GET` {}", head.amount, head.currency, request.amount));
    }
    Ok("`HEAD` costs what `GET` costs".to_owned())
}

fn served(seen: &Seen, request: &ChargeRequest, paid: Option<&Paid>) -> Finding {
    let receipt = look::served(seen)?;
    if receipt.drawn > request.amount {
        return Err(format!("{} was drawn, and {} was demanded", receipt.drawn, request.amount));
    }
    if receipt.currency != request.currency {
        return Err(format!("the receipt is in {}, the demand in {}", receipt.currency, request.currency));
    }
    let now_paid = paid.map(|paid| paid.paid).filter(|amount| !amount.is_zero());
    let how = now_paid.map_or_else(
        || "from what was paid before".to_owned(),
        |amount| format!("paid {amount} {} now", receipt.currency),
    );
    Ok(format!("{}: {how}, drew {}, left {}", seen.status, receipt.drawn, receipt.left))
}

fn not_charged(seen: &Seen, what: &str) -> Finding {
    if seen.status == StatusCode::PAYMENT_REQUIRED {
        return Err(format!(
            "{what} is demanded again: a payer who lost the first answer would pay twice. See that the web server passes the \
             same `Host` and address to the gate each time, and that one gate with one state answers"
        ));
    }
    let receipt = look::served(seen)?;
    if receipt.drawn.is_zero() {
        Ok(format!("{what} is served and not charged"))
    } else {
        Err(format!("{what} was charged again: {} {}", receipt.drawn, receipt.currency))
    }
}

/// A text of base64url with one letter in its middle changed.
fn changed(text: &str) -> String {
    let middle = text.len() / 2;
    let letters = text.char_indices();
    letters
        .map(|(at, letter)| match (at == middle, letter) {
            (false, letter) => letter,
            (true, 'A') => 'B',
            (true, _) => 'A',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_scheme_and_host_alone() {
        assert!(origin("https://app.example").is_ok() && origin("http://localhost:3000").is_ok());
        for text in ["app.example", "https://app.example/", "https://app.example/a", "ftp://a", "", "null"] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_letter_is_changed() {
        for text in ["abcd", "ABAB", "A"] {
            let other = changed(text);
            assert_eq!(text.chars().zip(other.chars()).filter(|(one, other)| one != other).count(), 1, "{text}");
        }
        assert_eq!(changed(""), "");
    }

    #[test]
    fn told_is_right_only_when_every_step_is() {
        let mut steps = Steps::default();
        assert!(steps.note("one", Ok("fine".to_owned())));
        assert!(!steps.note("two", Err("odd".to_owned())));
        let told = Told { ok: steps.0.iter().all(|step| step.ok), steps: steps.0 };
        let text = serde_json::to_string(&told).unwrap_or_default();
        assert_eq!(
            text,
            r#"{"ok":false,"steps":[{"name":"one","ok":true,"detail":"fine"},{"name":"two","ok":false,"detail":"odd"}]}"#
        );
        assert!(told.show().contains("WRONG") && told.show().ends_with("something is wrong"));
    }
}
