//! `fetch`: a request to the web, as curl makes it, that pays what is demanded within a budget.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method};
use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Request, Response, StatusCode, Url};
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};
use serde::Serialize;
use weir_client::Span;
use weir_client::fetch::{Demand, FetchError, Paid, PayMiddleware, Rules, Target, middleware};
use weir_client::protocol::amount::{Amount, Currency};
use weir_client::protocol::http::problem::{MEDIA_TYPE, Problem};
use weir_client::protocol::id::AccountId;

use super::context::{Context, now};
use super::failure::{Failure, RETRY};
use super::printer::{self, say};
use super::purse::{self, PurseArgs, Report, ReportLine};
use super::text::plain;

/// Redirects that are followed with `-L`.
const MAX_REDIRECTS: u32 = 10;
/// How long the home is held after a payment.
const REST: Duration = Duration::from_millis(200);
/// Most of a failed answer's body that is looked at for its reason.
const PROBLEM_BYTES: usize = 16 * 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "What was paid is said on stderr; stdout is the answer's body. A page that was paid for is kept: the same request shows the payment again, and pays only when the server says that it is used up.\nExit codes: 0 answered, 1 refused or an HTTP status of 400 or more, 2 usage, 3 a retry is safe, 4 it may be paid (the same command asks).\n\nExamples:\n  weir fetch https://news.example/article\n  weir fetch https://api.example/v1/chat -d '{\"prompt\": \"…\"}' -H 'content-type: application/json' --max-price 0.05 --prepay 20x\n  weir fetch https://news.example/archive.zip -O --max-price 1.00 --day-budget 5.00 --report spent.jsonl\n  weir fetch https://news.example/article --dry-run"
)]
pub(super) struct FetchArgs {
    /// The address, `http://` or `https://`.
    url: String,
    /// The method [default: GET, or POST with data].
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<String>,
    /// A header, `Name: value`; may be given more than once.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// What to send; `@FILE` reads it without line ends, `@-` from stdin. More than one are joined by `&`.
    #[arg(short = 'd', long = "data", value_name = "DATA")]
    data: Vec<String>,
    /// What to send, byte for byte; `@FILE` reads it, `@-` from stdin.
    #[arg(long, value_name = "DATA", conflicts_with = "data")]
    data_binary: Option<String>,
    /// Write the body to this file.
    #[arg(short = 'o', long = "output", value_name = "FILE", conflicts_with = "remote_name")]
    output: Option<PathBuf>,
    /// Write the body to a file that is named as in the address.
    #[arg(short = 'O', long)]
    remote_name: bool,
    /// Print the answer's status and headers before the body.
    #[arg(short = 'i', long)]
    include: bool,
    /// Ask for the headers alone.
    #[arg(short = 'I', long, conflicts_with_all = ["data", "data_binary"])]
    head: bool,
    /// Say on stderr what is sent and answered. Credentials are not shown.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Follow redirects. Another origin sees no credential, and is paid by its own demand.
    #[arg(short = 'L', long)]
    location: bool,
    /// The most that this request may cost.
    #[arg(long, value_name = "AMOUNT", default_value = "0.10", env = "WEIR_MAX_PRICE")]
    max_price: Amount,
    /// The most that this command pays, redirects and prepaying included.
    #[arg(long, value_name = "AMOUNT")]
    budget: Option<Amount>,
    /// Only show the price, and pay nothing.
    #[arg(long)]
    dry_run: bool,
    /// Longest time that all of it may take [default: no bound].
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    #[command(flatten)]
    purse: PurseArgs,
}

/// What `--dry-run` shows.
#[derive(Debug, Serialize)]
struct Quoted {
    url: String,
    status: u16,
    /// Null: nothing is demanded.
    price: Option<Amount>,
    currency: Option<Currency>,
    payee: Option<AccountId>,
    realm: Option<String>,
    description: Option<String>,
    /// The price is the most.
    metered: bool,
    expires_at_ms: Option<u64>,
    /// Whether it would be paid: within the limits, at this hub.
    payable: bool,
    /// Why not.
    reason: Option<String>,
}

impl Quoted {
    fn show(&self) -> String {
        let mut facts = vec![("address", self.url.clone()), ("status", self.status.to_string())];
        match (&self.price, &self.currency) {
            (Some(price), Some(currency)) => facts.push(("price", format!("{price} {currency}"))),
            _ => facts.push(("price", "nothing is demanded".to_owned())),
        }
        facts.extend(self.description.as_ref().map(|text| ("for", plain(text))));
        facts.extend(self.realm.as_ref().map(|text| ("from", plain(text))));
        facts.extend(self.payee.map(|payee| ("payee", payee.to_string())));
        facts.extend(self.reason.clone().map(|text| ("not payable", text)));
        printer::facts(facts)
    }
}

/// A request as the command line describes it.
struct Wanted {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl Wanted {
    fn request(&self) -> Request {
        let mut request = Request::new(self.method.clone(), self.url.clone());
        *request.headers_mut() = self.headers.clone();
        *request.body_mut() = self.body.clone().map(Into::into);
        request
    }
}

/// Fetches.
pub(super) async fn fetch(context: &Context, args: &FetchArgs) -> Result<(), Failure> {
    let mut wanted = wanted(args)?;
    let timeout = match args.timeout {
        None | Some(Span::Never) => None,
        Some(Span::Ms(ms)) => Some(Duration::from_millis(ms)),
    };
    let web = purse::web(args.purse.cacert.as_ref(), timeout)?;
    let made = purse::payer(context, &args.purse, Some(args.max_price), args.budget, None, REST)?;
    if args.dry_run {
        return show_price(context, &web, &wanted, &made).await;
    }
    let mut report = Report::open(args.purse.report.as_ref())?;
    let pay = PayMiddleware::new(made.payer.clone());
    let mut builder = reqwest_middleware::ClientBuilder::new(web).with(pay);
    if args.verbose {
        builder = builder.with(Verbose);
    }
    let web = builder.build();
    context.unfinished(Some(
        "what was paid is kept: the same command shows it again, and never pays twice for it".to_owned(),
    ));
    let answered = follow(&web, &mut wanted, args.location, &mut report).await;
    made.purse.close().await;
    let (answer, target) = answered?;
    let status = answer.status();
    let paid = answer.extensions().get::<Paid>().cloned();
    let written = write(args, &wanted.url, answer).await;
    // Of a metered answer the end says what it came to.
    let ended = paid.as_ref().map(Paid::at_end);
    if let (Some(paid), Some(ended)) = (&paid, &ended)
        && paid.metered
        && !ended.metered
        && let Some(line) = purse::told_at_end(ended, target.host())
    {
        say(&line);
    }
    report.write(&ReportLine::new(&target, Some(status.as_u16()), ended.as_ref(), None))?;
    let detail = written?;
    context.unfinished(None);
    if status.as_u16() < 400 {
        return Ok(());
    }
    let failure = Failure::from(anyhow!("the server answers {status}{detail}"));
    if status == StatusCode::PAYMENT_REQUIRED {
        return Err(failure.hint("it demands something else than a payment that this home can make; nothing was paid"));
    }
    if matches!(status.as_u16(), 502..=504) {
        return Err(failure.hint("what was paid is kept: the same command shows it again").exit_with(RETRY));
    }
    Err(failure)
}

fn wanted(args: &FetchArgs) -> Result<Wanted, Failure> {
    let usage = |text: String| Failure::usage(anyhow!(text));
    let url = Url::parse(&args.url).map_err(|error| usage(format!("`{}` is no address: {error}", args.url)))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(usage(format!("`{}` is neither `http` nor `https`", args.url)));
    }
    let mut headers = HeaderMap::new();
    for text in &args.headers {
        let (name, value) =
            text.split_once(':').ok_or_else(|| usage(format!("`{text}` is no header: expected `Name: value`")))?;
        let name: HeaderName = name.trim().parse().map_err(|_| usage(format!("`{name}` is no name of a header")))?;
        let value: HeaderValue =
            value.trim().parse().map_err(|_| usage(format!("the value of `{name}` cannot be in a header")))?;
        headers.append(name, value);
    }
    let body = match (&args.data_binary, args.data.as_slice()) {
        (Some(text), _) => Some(data(text, false)?),
        (None, []) => None,
        (None, parts) => {
            let parts: Vec<Vec<u8>> = parts.iter().map(|part| data(part, true)).collect::<Result<_, _>>()?;
            Some(parts.join(&b'&'))
        }
    };
    if body.is_some() {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.entry(header::CONTENT_TYPE).or_insert(form);
    }
    let method = match (&args.method, args.head, &body) {
        (Some(name), _, _) => name.parse().map_err(|_| usage(format!("`{name}` is no method")))?,
        (None, true, _) => Method::HEAD,
        (None, false, Some(_)) => Method::POST,
        (None, false, None) => Method::GET,
    };
    headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    Ok(Wanted { method, url, headers, body })
}

/// Data as curl takes it.
fn data(text: &str, is_text: bool) -> Result<Vec<u8>, Failure> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.as_bytes().to_vec()) };
    let mut bytes = Vec::new();
    if path == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes)?;
    } else {
        bytes = std::fs::read(path).with_context(|| format!("cannot read `{path}`"))?;
    }
    if is_text {
        bytes.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    }
    Ok(bytes)
}

/// Sends, and goes where redirects lead when that is wanted. Reports all but the last answer.
async fn follow(
    web: &ClientWithMiddleware,
    wanted: &mut Wanted,
    location: bool,
    report: &mut Report,
) -> Result<(Response, Target), Failure> {
    let mut redirects = 0;
    loop {
        let request = wanted.request();
        let target = middleware::target(&request);
        let answer = match web.execute(request).await {
            Ok(answer) => answer,
            Err(error) => {
                report.write(&ReportLine::new(&target, None, None, Some(format!("{error:#}"))))?;
                return Err(purse::failed(error));
            }
        };
        let paid = answer.extensions().get::<Paid>();
        if let Some(paid) = paid {
            say(&purse::told(paid, target.host()));
        }
        let to = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let Some(to) = to.filter(|_| location && answer.status().is_redirection()) else {
            return Ok((answer, target));
        };
        report.write(&ReportLine::new(&target, Some(answer.status().as_u16()), paid, None))?;
        redirects += 1;
        if redirects > MAX_REDIRECTS {
            return Err(anyhow!("more than {MAX_REDIRECTS} redirects").into());
        }
        let to = wanted.url.join(to).context("a redirect leads nowhere")?;
        if !matches!(to.scheme(), "http" | "https") {
            return Err(anyhow!("a redirect leads to `{to}`, which is not the web").into());
        }
        if to.origin() != wanted.url.origin() {
            for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
                wanted.headers.remove(name);
            }
        }
        let becomes_get = match answer.status() {
            StatusCode::SEE_OTHER => wanted.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => wanted.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            (wanted.method, wanted.body) = (Method::GET, None);
            wanted.headers.remove(header::CONTENT_TYPE);
        }
        wanted.url = to;
    }
}

/// Writes the answer where it goes, as it comes; what a failed one says about itself.
async fn write(args: &FetchArgs, url: &Url, answer: Response) -> Result<String, Failure> {
    let path = file_name(args, url)?;
    let to_file = path.is_some();
    let mut out: Box<dyn std::io::Write> = match path {
        Some(path) => {
            let file = std::fs::File::create(&path);
            Box::new(file.with_context(|| format!("cannot write `{}`", path.display()))?)
        }
        None => Box::new(std::io::stdout()),
    };
    let bar = (to_file && std::io::stderr().is_terminal()).then(|| progress(answer.content_length()));
    let mut head = String::new();
    if args.include || args.head {
        head = format!("{:?} {}\r\n", answer.version(), answer.status());
        for (name, value) in answer.headers() {
            head.extend([name.as_str(), ": ", &String::from_utf8_lossy(value.as_bytes()), "\r\n"]);
        }
        head.push_str("\r\n");
    }
    let is_problem = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(MEDIA_TYPE.as_bytes()));
    let mut problem = Vec::new();
    let mut open = put(&mut out, head.as_bytes())?;
    let mut body = http::Response::<reqwest::Body>::from(answer).into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::from(error).hint("what was paid is kept: the same command shows it again").exit_with(RETRY)
        })?;
        let chunk = match frame.into_data() {
            Ok(chunk) => chunk,
            Err(frame) => {
                if let Some(trailers) = frame.trailers_ref().filter(|_| args.verbose) {
                    let mut text = "< trailers".to_owned();
                    lines("<", trailers, &mut text);
                    say(&text);
                }
                continue;
            }
        };
        if is_problem && problem.len() < PROBLEM_BYTES {
            problem.extend_from_slice(&chunk);
        }
        if let Some(bar) = &bar {
            bar.inc(chunk.len() as u64);
        }
        open = open && put(&mut out, &chunk)?;
        if !open {
            break;
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let told: Option<Problem> = serde_json::from_slice(&problem).ok();
    Ok(told.map_or_else(String::new, |told| format!(": {}", plain(&told.detail.unwrap_or(told.title)))))
}

/// False: the reader went away, which is no failure.
fn put(out: &mut impl std::io::Write, bytes: &[u8]) -> Result<bool, Failure> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("the answer cannot be written").into()),
    }
}

fn file_name(args: &FetchArgs, url: &Url) -> Result<Option<PathBuf>, Failure> {
    if !args.remote_name {
        return Ok(args.output.clone().filter(|path| path.as_os_str() != "-"));
    }
    let last = url.path_segments().and_then(Iterator::last).filter(|name| !name.is_empty());
    match last {
        // A name, never a way elsewhere.
        Some(name) if name != ".." && !name.contains(['/', '\\']) => Ok(Some(PathBuf::from(name))),
        _ => Err(Failure::usage(anyhow!("`{url}` names no file; `-o FILE` does"))),
    }
}

fn progress(length: Option<u64>) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let style = ProgressStyle::with_template("{bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Asks without paying.
async fn show_price(
    context: &Context,
    web: &reqwest::Client,
    wanted: &Wanted,
    made: &purse::Made,
) -> Result<(), Failure> {
    let mut request = wanted.request();
    request.headers_mut().entry("accept-payment").or_insert(HeaderValue::from_static("weir"));
    let host = middleware::target(&request).host().to_owned();
    let answer = web.execute(request).await.map_err(|error| Failure::from(error).exit_with(RETRY))?;
    let mut price = Quoted {
        url: wanted.url.to_string(),
        status: answer.status().as_u16(),
        price: None,
        currency: None,
        payee: None,
        realm: None,
        description: None,
        metered: false,
        expires_at_ms: None,
        payable: false,
        reason: None,
    };
    if answer.status() == StatusCode::PAYMENT_REQUIRED {
        let hub = context.look()?.hub().hub;
        match Demand::of(answer.headers(), hub, &Rules::default(), now()) {
            Ok(demand) => {
                let spend = weir_client::fetch::Spend {
                    host,
                    currency: demand.currency(),
                    price: demand.price(),
                    amount: demand.price(),
                };
                let checked = made.payer.store().budget(|budget| budget.check(now(), &spend));
                price.price = Some(demand.price());
                price.currency = Some(demand.currency());
                price.payee = Some(demand.request.recipient);
                price.realm = Some(demand.challenge.realm.clone());
                price.description.clone_from(&demand.request.description);
                price.metered = demand.request.details.metered;
                price.expires_at_ms = super::text::bound_ms(demand.expires_at);
                price.payable = checked.is_ok();
                price.reason = checked.err().map(|error| error.to_string());
            }
            Err(error) => price.reason = Some(FetchError::Demand(error).to_string()),
        }
    }
    context.printer.print(&price, Quoted::show)
}

/// Says what is sent and answered.
struct Verbose;

impl Verbose {
    async fn run(
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let url = request.url();
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        let mut text = format!("> {} {}{query}\n> host: {}", request.method(), url.path(), url.authority());
        lines(">", request.headers(), &mut text);
        say(&text);
        let answer = next.run(request, extensions).await?;
        let mut text = format!("< {:?} {}", answer.version(), answer.status());
        lines("<", answer.headers(), &mut text);
        say(&text);
        Ok(answer)
    }
}

fn lines(mark: &str, headers: &HeaderMap, to: &mut String) {
    for (name, value) in headers {
        let secret = value.is_sensitive() || name == header::AUTHORIZATION || name == header::COOKIE;
        let shown = if secret { std::borrow::Cow::from("…") } else { String::from_utf8_lossy(value.as_bytes()) };
        to.extend(["\n", mark, " ", name.as_str(), ": ", &*shown]);
    }
}

impl Middleware for Verbose {
    fn handle<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        request: Request,
        extensions: &'life1 mut Extensions,
        next: Next<'life2>,
    ) -> Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(Self::run(request, extensions, next))
    }
}
