//! What is wrong with a configuration: file, line, key, hint.

use core::fmt;
use std::io;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{}`", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than [`super::MAX_FILE_BYTES`].
    #[error("`{}` is larger than {} bytes", .file.display(), super::MAX_FILE_BYTES)]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// It is not TOML, or has a key or a type that does not belong there.
    #[error("`{}` {}{message}", .file.display(), Line(.line))]
    Toml {
        /// The file.
        file: PathBuf,
        /// The line, from 1, when it is known.
        line: Option<usize>,
        /// What the reader of TOML says.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// A value makes no sense.
    #[error("`{}` {}`{key}` {what}", .file.display(), Line(.line))]
    Value {
        /// The file.
        file: PathBuf,
        /// The line, from 1; none for what is missing.
        line: Option<usize>,
        /// The key.
        key: String,
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
}

struct Line<'a>(&'a Option<usize>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => write!(f, "line {line}: "),
            None => f.write_str("has a fault: "),
        }
    }
}

impl ConfigError {
    /// What to do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Read { .. } => Some("`--config FILE` names the configuration"),
            Self::TooLarge { .. } => Some("a price table has a few routes with patterns, not one for each page"),
            Self::Toml { hint, .. } => Some(hint),
            Self::Value { hint, .. } => Some(hint),
        }
    }

    /// The line, from 1, when it is known.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        match self {
            Self::Toml { line, .. } | Self::Value { line, .. } => *line,
            Self::Read { .. } | Self::TooLarge { .. } => None,
        }
    }
}

/// All that is wrong; at least one thing.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
            if let ConfigError::Read { source, .. } = error {
                write!(f, ": {source}")?;
            }
            if let Some(hint) = error.hint() {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
