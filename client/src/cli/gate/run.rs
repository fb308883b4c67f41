//! `gate --config`: runs the gate until it is told to stop.

use std::path::Path;

use anyhow::anyhow;
use serde::Serialize;
use weir_client::gate::config::{GateConfig, Mode};
use weir_client::gate::service;

use super::super::context::stopped;
use super::super::failure::Failure;
use super::super::printer::{Printer, say};

/// The gate is ready.
#[derive(Debug, Serialize)]
struct Ready {
    /// Where it listens.
    address: String,
    /// Where its metrics are.
    metrics: Option<String>,
    mode: &'static str,
    upstream: Option<String>,
    realm: String,
    payee: String,
}

impl Ready {
    fn show(&self) -> String {
        let upstream = self.upstream.as_ref().map_or_else(String::new, |upstream| format!(" for {upstream}"));
        format!("charging on http://{}{upstream} as `{}`, paid to {}", self.address, self.realm, self.payee)
    }
}

/// Runs until Ctrl-C or SIGTERM, then lets answers end.
pub(super) async fn run(printer: Printer, file: &Path) -> Result<(), Failure> {
    let config = GateConfig::load(file).map_err(|errors| Failure::from(anyhow!("{errors}")))?;
    let sealer = super::operate::sealer(printer, &config.settings)?;
    let running =
        service::start_with(&config, sealer).await.map_err(|error| Failure::from(anyhow::Error::new(error)))?;
    let settings = &config.settings;
    let ready = Ready {
        address: running.address().to_string(),
        metrics: running.metrics().map(|address| address.to_string()),
        mode: if settings.mode == Mode::Proxy { "proxy" } else { "forward-auth" },
        upstream: settings.upstream.as_ref().map(ToString::to_string),
        realm: settings.realm.clone(),
        payee: settings.payee.to_string(),
    };
    printer.print(&ready, Ready::show)?;
    stopped().await?;
    say("stopping: answers that are under way may end");
    running.stop().await;
    Ok(())
}
