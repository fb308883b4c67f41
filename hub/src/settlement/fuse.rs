//! Where a test lets a hub die: before and after every act and every file operation of settlement. In the product it is
//! nothing.

use super::SettlementError;

/// Burns down by one at every step; at its end the step fails, as if the process had died there.
#[derive(Debug, Clone, Default)]
pub(super) struct Fuse {
    #[cfg(test)]
    left: std::sync::Arc<std::sync::Mutex<Option<usize>>>,
}

impl Fuse {
    /// A step is about to be made, or was made.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "it burns in tests")]
    pub(super) const fn burn(&self) -> Result<(), SettlementError> {
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn burn(&self) -> Result<(), SettlementError> {
        let mut left = self.left.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match left.as_mut() {
            None => Ok(()),
            Some(0) => Err(SettlementError::Broken),
            Some(steps) => {
                *steps -= 1;
                Ok(())
            }
        }
    }

    /// Lets it burn for so many steps.
    #[cfg(test)]
    pub(super) fn light(&self, steps: usize) {
        *self.left.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(steps);
    }
}
