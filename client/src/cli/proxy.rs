//! `proxy`: other programs pay through this one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use reqwest::Url;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use weir_client::fetch::proxy::{self, ProxyOptions, Served, is_local};
use weir_client::fetch::{Bought, PayMiddleware};
use weir_client::protocol::amount::Amount;

use super::context::{Context, stopped};
use super::failure::Failure;
use super::printer::{self, say};
use super::purse::{self, PurseArgs, Report, ReportLine};

/// How long the home is held after a payment, so that payments that follow each other share a connection.
const REST: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(
    after_help = "Plain HTTP: set `http_proxy=http://127.0.0.1:8403` for the program. HTTPS: give the program the base URL `http://127.0.0.1:8403/https/HOST` in place of `https://HOST`, or start the proxy with `--upstream https://HOST` and give it `http://127.0.0.1:8403`. CONNECT is tunnelled and never paid: TLS is not opened.\nWhoever reaches the proxy spends its budget: it listens on this machine alone, and refuses what web pages send. `--token` keeps other users of this machine out.\n\nExamples:\n  weir proxy --budget 1.00\n  weir proxy --budget 5.00 --max-price 0.02 --allow api.example --upstream https://api.example --prepay 50x\n  weir proxy --budget 1.00 --token random"
)]
pub(super) struct ProxyArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8403")]
    listen: SocketAddr,
    /// The most that this proxy pays in all.
    #[arg(long, value_name = "AMOUNT")]
    budget: Amount,
    /// The most that one request may cost.
    #[arg(long, value_name = "AMOUNT", default_value = "0.05", env = "WEIR_MAX_PRICE")]
    max_price: Amount,
    /// Reach only this host, `HOST` or `HOST:PORT`; may be given more than once.
    #[arg(long, value_name = "HOST")]
    allow: Vec<String>,
    /// Where requests go that name no host.
    #[arg(long, value_name = "URL")]
    upstream: Option<Url>,
    /// What requests must show, as `Proxy-Authorization: Bearer TOKEN`, as a password in `http_proxy`, or as `/token/TOKEN`
    /// before the path; `random` makes one.
    #[arg(long, value_name = "TOKEN", env = "WEIR_PROXY_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Listen where other machines can reach it. Needs a token; what is sent can be read on the way.
    #[arg(long, requires = "token")]
    allow_remote: bool,
    #[command(flatten)]
    purse: PurseArgs,
}

/// Said once it listens.
#[derive(Debug, Serialize)]
struct Ready {
    listen: SocketAddr,
    pid: u32,
    /// What `http_proxy` is set to.
    proxy_url: String,
    /// What stands before `HOST/PATH` of an `https` address; with `--upstream`, the base URL that takes its place.
    base_url: String,
    token: Option<String>,
    budget: Amount,
    max_price: Amount,
}

impl Ready {
    fn show(&self) -> String {
        printer::facts([
            ("http_proxy", self.proxy_url.clone()),
            ("base URL", self.base_url.clone()),
            ("budget", self.budget.to_string()),
            ("max price", self.max_price.to_string()),
        ])
    }
}

/// Serves until Ctrl-C or SIGTERM, then lets requests end; a second one ends them.
pub(super) async fn proxy(context: &Context, args: &ProxyArgs) -> Result<(), Failure> {
    if !is_local(&args.listen) && !args.allow_remote {
        let error = anyhow!("`{}` is reached from other machines, and whoever reaches the proxy spends", args.listen);
        return Err(Failure::usage(error).hint("listen on 127.0.0.1, or give `--allow-remote` and `--token`"));
    }
    let token = match args.token.as_deref() {
        Some("random") => Some(random_token()?),
        Some(text)
            if text.len() < 8 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) =>
        {
            return Err(Failure::usage(anyhow!("a token is 8 letters, digits, `-`, `_` or more")));
        }
        other => other.map(str::to_owned),
    };
    if let Some(upstream) = &args.upstream
        && (!matches!(upstream.scheme(), "http" | "https") || upstream.query().is_some())
    {
        return Err(Failure::usage(anyhow!("`--upstream` is an address `http://…` or `https://…` without a query")));
    }
    purse::check_lanes(context)?;
    let mut report = Report::open(args.purse.report.as_ref())?;
    let (bought, mut buying) = mpsc::unbounded_channel();
    let (served, mut serving) = mpsc::unbounded_channel();
    let made = purse::payer(context, &args.purse, Some(args.max_price), Some(args.budget), Some(bought), REST)?;
    let inner = purse::web(args.purse.cacert.as_ref(), None)?;
    let pay = PayMiddleware::new(made.payer.clone()).ahead(inner.clone());
    let web = reqwest_middleware::ClientBuilder::new(inner).with(pay.clone()).build();
    let switching = weir_client::fetch::switching_client(purse::roots(args.purse.cacert.as_ref())?.as_deref())?;
    let switching = reqwest_middleware::ClientBuilder::new(switching).with(pay).build();
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on `{}`", args.listen))?;
    let listen = listener.local_addr()?;
    let allow: BTreeSet<String> = args.allow.iter().map(|host| host.to_ascii_lowercase()).collect();
    let options = ProxyOptions {
        allow,
        upstream: args.upstream.clone(),
        token: token.clone(),
        remote: args.allow_remote,
        switching: Some(switching),
        told: Some(served),
    };
    let in_path = token.as_ref().map_or_else(String::new, |token| format!("/token/{token}"));
    let ready = Ready {
        listen,
        pid: std::process::id(),
        proxy_url: token
            .as_ref()
            .map_or_else(|| format!("http://{listen}"), |token| format!("http://weir:{token}@{listen}")),
        base_url: match &args.upstream {
            Some(_) => format!("http://{listen}{in_path}"),
            None => format!("http://{listen}{in_path}/https"),
        },
        token,
        budget: args.budget,
        max_price: args.max_price,
    };
    context.printer.line(&ready, Ready::show)?;
    let (stop, stopping) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let serve = proxy::serve(listener, web, options, async {
        // Dropped: nothing is served any more.
        let _ = stopping.await;
    });
    tokio::pin!(serve);
    let mut signal = Box::pin(stopped());
    let paid = |bought: Bought| {
        let spent = made.payer.store().budget(|budget| budget.own(made.currency));
        let receipt = bought.receipt_file.map_or_else(String::new, |path| format!(" (receipt {})", path.display()));
        say(&format!(
            "paid {} {} to {} for {}{receipt}; {spent} of {} spent",
            bought.amount, bought.currency, bought.payee, bought.target, args.budget
        ));
    };
    let mut answered = |served: &Served| {
        report.write(&ReportLine::new(&served.target, Some(served.status), served.paid.as_ref(), None))
    };
    loop {
        tokio::select! {
            () = &mut serve => break,
            signalled = &mut signal => {
                signalled?;
                // The second time it is meant at once.
                let Some(stop) = stop.take() else { break };
                say("stopping: requests that are under way may end; again to stop at once");
                // The other end lives as long as this.
                let _ = stop.send(());
                signal = Box::pin(stopped());
            }
            Some(bought) = buying.recv() => paid(bought),
            Some(served) = serving.recv() => answered(&served)?,
        }
    }
    // What was told last.
    while let Ok(bought) = buying.try_recv() {
        paid(bought);
    }
    while let Ok(served) = serving.try_recv() {
        answered(&served)?;
    }
    made.purse.close().await;
    Ok(())
}

fn random_token() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(hex::encode(bytes))
}
