//! What every command works with: where the home is, how it is opened, and what to say when it is interrupted.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use weir_client::protocol::amount::Time;
use weir_client::protocol::id::ChannelId;
use weir_client::protocol::reject::Reject;
use weir_client::protocol::wire::ChannelInfo;
use weir_client::{Client, Error, Home, HomeError, PlainKeys, Sealer};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::keys::PassphraseKeys;
use super::printer::{Printer, say};
use super::text::Prefix;

/// Longest wait for another process to leave the home.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How a command uses the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Alone: to pay, to open channels, to grant lanes.
    Alone,
    /// Beside a process that may pay: to ask, to listen, for acts of the account.
    Beside,
}

/// What every command works with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) printer: Printer,
    home: PathBuf,
    /// Opens and seals the home's keys.
    sealer: OnceLock<Sealer>,
    /// What to say when the command is interrupted.
    unfinished: Mutex<Option<String>>,
}

impl Context {
    pub(super) const fn new(printer: Printer, home: PathBuf) -> Self {
        Self { printer, home, sealer: OnceLock::new(), unfinished: Mutex::new(None) }
    }

    /// The home's folder.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// From here on an interruption leaves something open: what to say then.
    pub(super) fn unfinished(&self, hint: Option<String>) {
        *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner) = hint;
    }

    /// What to say about an interruption now.
    pub(super) fn interruption(&self) -> Option<String> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The home without its keys: for what needs no signature.
    pub(super) fn look(&self) -> Result<Home, Failure> {
        Ok(Home::open_shared(&self.home, PlainKeys::sealer())?)
    }

    /// Asks for the passphrase when the home's keys are under one. Before anything runs: waiting for a person blocks.
    pub(super) fn unlock(&self) -> Result<(), Failure> {
        let home = self.look()?;
        let path = self.home.join("keys").join(home.account().key().to_string());
        let account_key = std::fs::read(&path).map(Zeroizing::new);
        let account_key = account_key.with_context(|| format!("cannot read the account's key `{}`", path.display()))?;
        let sealer: Sealer = if PassphraseKeys::made(&account_key) {
            Arc::new(PassphraseKeys::new(passphrase("passphrase: ")?))
        } else {
            PlainKeys::sealer()
        };
        self.sealer.get_or_init(|| sealer);
        Ok(())
    }

    /// The home with its keys.
    pub(super) async fn open(&self, how: Use) -> Result<Home, Failure> {
        let opener = self.opener();
        if how == Use::Beside {
            return Ok(Home::open_shared(&opener.home, opener.sealer)?);
        }
        Ok(opener.open_alone().await?)
    }

    /// What opens the home again and again, by itself.
    pub(super) fn opener(&self) -> Opener {
        let sealer = self.sealer.get().map_or_else(PlainKeys::sealer, Arc::clone);
        Opener { home: self.home.clone(), sealer }
    }

    /// What opens the home's keys.
    pub(super) fn sealer(&self) -> Sealer {
        self.opener().sealer
    }

    /// A client on the home.
    pub(super) async fn client(&self, how: Use) -> Result<Client, Failure> {
        Ok(Client::start(self.open(how).await?)?)
    }
}

/// Opens a home alone, whenever it is needed.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    home: PathBuf,
    sealer: Sealer,
}

impl Opener {
    /// Waits for another process to leave it, as long as that is worth it.
    pub(super) async fn open_alone(&self) -> Result<Home, HomeError> {
        let since = tokio::time::Instant::now();
        let mut told = false;
        loop {
            match Home::open(&self.home, Arc::clone(&self.sealer)) {
                Err(HomeError::Locked(_)) if since.elapsed() < LOCK_PATIENCE => {
                    if !told {
                        say(&format!("waiting: another process pays from `{}`", self.home.display()));
                        told = true;
                    }
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                opened => return opened,
            }
        }
    }
}

/// The passphrase: from `WEIR_PASSPHRASE`, or asked on the terminal without echo.
fn passphrase(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if let Some(value) = std::env::var_os("WEIR_PASSPHRASE") {
        let value = value.into_string().map_err(|_| Failure::usage(anyhow!("`WEIR_PASSPHRASE` is not valid UTF-8")))?;
        return Ok(Zeroizing::new(value));
    }
    if !std::io::stdin().is_terminal() {
        let error = anyhow!("the keys are under a passphrase, and nobody is here to type it");
        return Err(Failure::from(error).hint("set `WEIR_PASSPHRASE`"));
    }
    let typed = rpassword::prompt_password(prompt).context("cannot ask for the passphrase")?;
    Ok(Zeroizing::new(typed))
}

/// A new passphrase: asked twice on a terminal.
pub(super) fn new_passphrase() -> Result<Sealer, Failure> {
    let first = passphrase("new passphrase: ")?;
    if std::env::var_os("WEIR_PASSPHRASE").is_none() && passphrase("the same again: ")? != first {
        return Err(anyhow!("the two passphrases differ; nothing was made").into());
    }
    if first.is_empty() {
        return Err(Failure::usage(anyhow!("the passphrase is empty")));
    }
    Ok(Arc::new(PassphraseKeys::new(first)))
}

/// The wall clock.
pub(super) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The account's channels at the hub. A home that only has lanes that others granted needs no account.
pub(super) async fn channels(client: &Client) -> Result<Vec<ChannelInfo>, Failure> {
    match client.channels().await {
        Err(Error::Refused(Reject::UnknownAccount)) => Ok(Vec::new()),
        channels => Ok(channels?),
    }
}

/// One of the account's channels, by its id or the beginning of it. The hub knows them all.
pub(super) async fn channel(client: &Client, prefix: &Prefix) -> Result<ChannelInfo, Failure> {
    let found = prefix.find("channel", client.channels().await?, |info| info.channel.to_string());
    found.map_err(|error| Failure::from(error).hint("`weir channels` lists yours"))
}

/// One of the channels that this home opened, by its id or the beginning of it.
pub(super) fn home_channel(home: &Home, prefix: &Prefix) -> Result<ChannelId, Failure> {
    let found = prefix.find("channel", home.channels()?, |record| record.terms.id().to_string());
    let record = found.map_err(|error| Failure::from(error).hint("`weir channels` lists yours"))?;
    Ok(record.terms.id())
}

/// Ctrl-C, or what a service manager sends.
pub(super) async fn stopped() -> Result<(), Failure> {
    #[cfg(unix)]
    {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            signal = tokio::signal::ctrl_c() => signal?,
            _ = terminated.recv() => {}
        }
        Ok(())
    }
    #[cfg(not(unix))]
    Ok(tokio::signal::ctrl_c().await?)
}
