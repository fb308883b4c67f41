//! How a command fails: its text with all causes once, a hint, an exit code.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 usage, 3 a retry is safe, 4 the outcome is unknown (look before trying
//! again), 130 interrupted.

use std::io::Write as _;
use std::process::ExitCode;

use weir_client::protocol::reject::Reject;
use weir_client::{Error, HomeError, InfraError, LaneStopped, MisuseError, PayError};

/// Refused or failed.
pub(super) const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// The same command can be given again.
pub(super) const RETRY: u8 = 3;
/// Something was sent and not answered.
pub(super) const UNKNOWN: u8 = 4;
/// Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
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

    /// The same with a hint, in place of another.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another exit code.
    pub(super) const fn exit_with(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// The text on stderr; empty when there is nothing left to say.
    pub(super) fn text(&self) -> String {
        let Some(error) = &self.error else { return String::new() };
        let mut said = error.to_string();
        let mut text = format!("error: {said}\n");
        for cause in error.chain().skip(1).map(ToString::to_string) {
            // Errors that name their cause already do not say it twice.
            if !said.contains(&cause) {
                text = format!("{text}  caused by: {cause}\n");
            }
            said = cause;
        }
        match &self.hint {
            Some(hint) => format!("{text}hint: {hint}\n"),
            None => text,
        }
    }

    /// The same as a part of another's: without the hint.
    pub(super) fn told(&self) -> String {
        let chain = self.error.iter().flat_map(anyhow::Error::chain).map(ToString::to_string);
        chain.collect::<Vec<_>>().join(": ")
    }

    /// Prints it on stderr.
    pub(super) fn print(&self) {
        // Nobody is left to be told.
        let _ = std::io::stderr().lock().write_all(self.text().as_bytes());
    }

    /// The process's exit code.
    pub(super) fn exit(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let (hint, exit) = error
            .chain()
            .find_map(|cause| {
                if let Some(error) = cause.downcast_ref::<Error>() {
                    return Some(judge(error));
                }
                if let Some(error) = cause.downcast_ref::<HomeError>() {
                    return Some(judge_home(error));
                }
                if let Some(error) = cause.downcast_ref::<MisuseError>() {
                    return Some((misuse_hint(error), FAILED));
                }
                cause.downcast_ref::<PayError>().map(judge_pay)
            })
            .unwrap_or((None, FAILED));
        Self { error: Some(error), hint, exit }
    }
}

fn judge(error: &Error) -> (Option<String>, u8) {
    match error {
        error if error.outcome_unknown() => {
            let hint = "it may have been done: look with `weir balance`, `weir channels` or `weir history`. The same command \
                        again does nothing twice";
            (Some(hint.to_owned()), UNKNOWN)
        }
        Error::Infra(InfraError::Unreachable { .. }) => (
            Some("is the hub running? If it moved, `weir hub --moved-to ADDRESS` tells this home where".to_owned()),
            RETRY,
        ),
        // Another one answers in the hub's place: trying again is safe, and will not help by itself.
        Error::Infra(InfraError::WrongHub { .. }) => {
            (Some("ask the hub's operator for its address; nothing was said to whoever answered".to_owned()), FAILED)
        }
        Error::Infra(_) => (None, RETRY),
        Error::Refused(reject) => judge_refusal(*reject),
        Error::Misuse(error) => (misuse_hint(error), FAILED),
        Error::Evidence { .. } => (
            Some("stop dealing with this hub, and keep the evidence: it proves the fault to anybody".to_owned()),
            FAILED,
        ),
        Error::Home(error) => judge_home(error),
    }
}

/// What to do about a refusal, and whether the same may be taken later.
pub(super) fn judge_refusal(reject: Reject) -> (Option<String>, u8) {
    let exit = match reject {
        // A stale number means that another process acted with the same key meanwhile: the next try takes a newer one.
        Reject::Busy | Reject::Stopped | Reject::Stale => RETRY,
        _ => FAILED,
    };
    (refusal_hint(reject).map(str::to_owned), exit)
}

fn refusal_hint(reject: Reject) -> Option<&'static str> {
    Some(match reject {
        Reject::Busy | Reject::Stopped | Reject::Stale => "try again in a moment",
        Reject::UnknownAccount => "`weir register --name NAME --iban IBAN` makes the account known to the hub",
        Reject::NotApproved => "the hub's operator approves accounts: send them what `weir id` prints",
        Reject::UnknownChannel => "`weir channels` lists yours",
        Reject::UnknownLane => "`weir lanes list` lists the lanes that the hub knows",
        Reject::Closed => "`weir open CAPACITY` opens another channel",
        Reject::Revoked | Reject::Expired => "`weir lanes list` and `weir channels` show what can still pay",
        Reject::Detached => "another process pays with this lane's key: stop it, or give it a lane of its own",
        Reject::UnknownPayee => "the payee must be registered and approved at this hub",
        Reject::Limit => "`weir lanes list` shows the lane's limit; another lane may pay",
        Reject::Capacity => {
            "`weir amend CHANNEL --capacity TOTAL` adds to the channel, `weir open CAPACITY` opens another"
        }
        Reject::Insufficient => "`weir balance` shows what is available, `weir deposit` where to send more",
        Reject::Clock => "set this machine's clock right",
        Reject::Lower => "name the new total, not what to add: `weir channels` shows what is in force",
        Reject::UnknownPayment => "`weir history` lists the payments to you",
        Reject::RefundAmount => "name all that is to be refunded of the payment, earlier refunds included",
        Reject::Iban => "an IBAN looks like `DE02 1203 0000 0000 2020 51`; spaces do not matter",
        _ => return None,
    })
}

fn judge_home(error: &HomeError) -> (Option<String>, u8) {
    match error {
        HomeError::Missing(_) => {
            (Some("`weir init --hub weir://…` makes one; `--home DIR` names it".to_owned()), FAILED)
        }
        HomeError::Exists(_) => (Some("a home is never made over another: name a new folder".to_owned()), FAILED),
        HomeError::Locked(_) => (Some("one process at a time pays from a home".to_owned()), RETRY),
        HomeError::Damaged { .. } => {
            (Some("take the file from a backup; keys cannot be made again. Nothing was sent".to_owned()), FAILED)
        }
        HomeError::Io { .. } | HomeError::Key { .. } => (None, FAILED),
    }
}

fn misuse_hint(error: &MisuseError) -> Option<String> {
    match error {
        MisuseError::UnknownLane(_) => Some("`weir lanes list` shows the lanes".to_owned()),
        MisuseError::UnknownChannel(_) => {
            Some("`weir channels` lists yours; only the home that opened one can do this".to_owned())
        }
        _ => None,
    }
}

fn judge_pay(error: &PayError) -> (Option<String>, u8) {
    match error {
        PayError::Order(_) => (None, FAILED),
        PayError::Stopped(stopped) => judge_stopped(stopped),
    }
}

/// What to do about a lane that does nothing more by itself.
pub(super) fn judge_stopped(stopped: &LaneStopped) -> (Option<String>, u8) {
    match stopped {
        LaneStopped::Detached | LaneStopped::NewerCopy { .. } => {
            let hint = "find out who else has this lane's key (a copy of the home?) and stop it; then \
                        `weir lanes recover LANE` goes on here";
            (Some(hint.to_owned()), FAILED)
        }
        LaneStopped::Attach(reject) => judge_refusal(*reject),
        LaneStopped::Evidence { .. } => (
            Some("stop dealing with this hub, and keep the evidence: it proves the fault to anybody".to_owned()),
            FAILED,
        ),
        LaneStopped::Home(error) => judge_home(error),
        LaneStopped::ShutDown => (None, RETRY),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn failure_of_the_network_says_whether_the_outcome_is_known() {
        for (error, exit) in [
            (Error::Infra(InfraError::Lost), RETRY),
            (Error::Infra(InfraError::Unfinished { act: "close" }), UNKNOWN),
            (Error::Refused(Reject::Busy), RETRY),
            (Error::Refused(Reject::Capacity), FAILED),
            (Error::Home(HomeError::Locked("home".into())), RETRY),
        ] {
            let failure = Failure::from(error.clone());
            assert_eq!(failure.exit, exit, "{error}");
        }
    }

    #[test]
    fn text_names_each_cause_once_and_ends_with_the_hint() {
        let decode = weir_client::protocol::wire::DecodeError::Malformed;
        let error = Error::Infra(InfraError::Decode(decode));
        let text = Failure::from(anyhow::Error::new(error).context("cannot ask for the balance")).text();
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap(), "error: cannot ask for the balance");
        assert!(lines.next().unwrap().starts_with("  caused by: the hub broke the protocol: "));
        assert_eq!(lines.next(), None);
        let text = Failure::from(Error::Refused(Reject::UnknownAccount)).text();
        assert!(text.ends_with("makes the account known to the hub\n"), "{text}");
        assert_eq!(Failure::said().text(), "");
    }

    #[test]
    fn hint_is_one_line_without_a_final_period() {
        for reject in Reject::ALL {
            if let Some(hint) = refusal_hint(*reject) {
                assert!(!hint.ends_with('.') && !hint.contains('\n'), "{hint}");
            }
        }
    }
}
