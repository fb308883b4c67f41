//! How a command fails: its text with all causes once, a hint, an exit code.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 usage, 3 a retry is safe, 4 the outcome is unknown (look before trying
//! again).

use std::io::Write as _;
use std::process::ExitCode;

use crate::admin::Fault;
use crate::admin::client::AskError;
use crate::audit::AuditError;
use crate::config::ConfigError;
use crate::keys::KeyFileError;
use crate::pipeline::compact::ReplayError;
use crate::pipeline::recover::StartError;
use crate::store::StoreError;

/// Refused or failed.
const FAILED: u8 = 1;
/// The command line or a setting makes no sense.
const USAGE: u8 = 2;
/// The outcome is unknown.
const UNKNOWN: u8 = 4;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    error: Option<anyhow::Error>,
    hint: Option<String>,
    exit: u8,
}

impl Failure {
    /// The command line makes no sense.
    pub(super) fn usage(error: anyhow::Error) -> Self {
        Self { error: Some(error), hint: None, exit: USAGE }
    }

    /// What was printed on stdout says it all.
    pub(super) const fn said() -> Self {
        Self { error: None, hint: None, exit: FAILED }
    }

    /// The same with a hint.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it on stderr.
    pub fn print(&self) {
        let Some(error) = &self.error else { return };
        let mut text = format!("error: {error}\n");
        for cause in error.chain().skip(1) {
            text = format!("{text}  caused by: {cause}\n");
        }
        if let Some(hint) = &self.hint {
            text = format!("{text}hint: {hint}\n");
        }
        // Nobody is left to be told.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// The process's exit code.
    pub fn exit(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let (hint, exit) = error
            .chain()
            .find_map(|cause| {
                if let Some(error) = cause.downcast_ref::<ConfigError>() {
                    return Some((error.hint(), USAGE));
                }
                if let Some(error) = cause.downcast_ref::<KeyFileError>() {
                    return Some((error.hint(), FAILED));
                }
                if let Some(error) = cause.downcast_ref::<StartError>() {
                    return Some((start_hint(error), FAILED));
                }
                if let Some(error) = cause.downcast_ref::<AuditError>() {
                    return Some((audit_hint(error), FAILED));
                }
                if let Some(error) = cause.downcast_ref::<ReplayError>() {
                    return Some((replay_hint(error), FAILED));
                }
                if let Some(error) = cause.downcast_ref::<StoreError>() {
                    return Some((store_hint(error), FAILED));
                }
                if let Some(error) = cause.downcast_ref::<Fault>() {
                    return Some((error.hint.clone(), error.exit));
                }
                cause.downcast_ref::<AskError>().map(ask_hint)
            })
            .unwrap_or((None, FAILED));
        Self { error: Some(error), hint, exit }
    }
}

fn start_hint(error: &StartError) -> Option<String> {
    match error {
        StartError::Store(error) => store_hint(error),
        StartError::Replay(error) => replay_hint(error),
        StartError::Diverged { .. } => Some(
            "an old copy went on by itself. Find the newest copy; `--accept-rollback COMMIT` with this directory's last \
             commit goes on with this one"
                .into(),
        ),
        StartError::Foreign { .. } => Some("each hub needs an anchor of its own".into()),
        error => error.hint(),
    }
}

fn audit_hint(error: &AuditError) -> Option<String> {
    match error {
        AuditError::Store(error) => store_hint(error),
        AuditError::Base(error) => replay_hint(error),
        AuditError::NoBase { .. } | AuditError::Thread(_) => None,
    }
}

fn replay_hint(error: &ReplayError) -> Option<String> {
    match error {
        ReplayError::Store(error) => store_hint(error),
        ReplayError::Broken(_) => Some("`weir-hub audit` says more; restore the newest good copy".into()),
        ReplayError::Snapshot(number) => Some(format!(
            "this version cannot read the snapshot at commit {number}; with the whole journal there, it may be deleted"
        )),
    }
}

fn store_hint(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Locked { .. } => Some("stop it first; `weir-hub status` says which process it is".into()),
        StoreError::Damaged { .. } | StoreError::CutBelowFloor { .. } | StoreError::BehindSnapshot { .. } => Some(
            "the disk lost what was durable. Keep a copy of the directory, then restore the newest good one".into(),
        ),
        StoreError::SnapshotFormat { .. } => Some(
            "run the version that wrote it; or, if no segment of the journal was pruned, delete it and start again: the \
             state is built anew from the journal"
                .into(),
        ),
        StoreError::NoSegment { .. } => Some("make room on the disk".into()),
        _ => None,
    }
}

fn ask_hint(error: &AskError) -> (Option<String>, u8) {
    match error {
        AskError::Fault(fault) => (fault.hint.clone(), fault.exit),
        AskError::Lost { open: true, .. } | AskError::Unreadable { open: true, .. } => (
            Some("it may have been done: look with `weir-hub status` and the lists before trying again".into()),
            UNKNOWN,
        ),
        AskError::Lost { .. } => (Some("is the hub still running?".into()), 3),
        AskError::Io { .. } | AskError::Unreadable { .. } => (None, FAILED),
    }
}
