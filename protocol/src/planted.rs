//! Bugs on purpose, for the simulator to find: only with the feature `planted-bugs`, which no build of the product has.
//! Planted for one thread, so that runs beside each other do not see each other's.

use std::cell::Cell;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Answers go out before their commit is durable.
    AnswerBeforeDurable,
    /// A restart forgets what was given up.
    VoidForgotten,
    /// Frames of a stream count although a newer one has attached.
    OldStreamNotFenced,
    /// The same terms open a channel again.
    OpenedAgain,
    /// A second channel opens with money that is locked already.
    TwoOpensOneBalance,
    /// What was refunded before is forgotten.
    RefundedTwice,
    /// Lanes do not see what others spent of the capacity.
    CapacityAcrossLanes,
    /// The first frame with a bad signature is taken with the good ones before it.
    StepBackOffByOne,
}

impl Bug {
    /// Every bug with its name.
    pub const ALL: [(&'static str, Self); 8] = [
        ("answer-before-durable", Self::AnswerBeforeDurable),
        ("void-forgotten", Self::VoidForgotten),
        ("old-stream-not-fenced", Self::OldStreamNotFenced),
        ("opened-again", Self::OpenedAgain),
        ("two-opens-one-balance", Self::TwoOpensOneBalance),
        ("refunded-twice", Self::RefundedTwice),
        ("capacity-across-lanes", Self::CapacityAcrossLanes),
        ("step-back-off-by-one", Self::StepBackOffByOne),
    ];

    /// Whether this thread has it.
    pub fn is_planted(self) -> bool {
        PLANTED.with(|planted| planted.get() == Some(self))
    }
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// From now on this thread has this bug, and no other.
pub fn plant(bug: Option<Bug>) {
    PLANTED.with(|planted| planted.set(bug));
}
