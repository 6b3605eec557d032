//! What can go wrong in the database, said without the driver's words: its texts repeat key values, and those are phone numbers.

use mongodb::error::{Error, ErrorKind, WriteFailure};

/// A failed operation of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique index refused the write.
    #[error("a unique index refused the write ({index})")]
    Duplicate {
        /// Name of the index.
        index: String,
    },
    /// The database cannot be reached or has no primary; the same call may succeed later.
    #[error("the database cannot be used now (code {code:?})")]
    Unavailable {
        /// The server's error code, where it gave one.
        code: Option<i32>,
    },
    /// A stored document does not have the form that this version reads.
    #[error("a stored document cannot be read ({what})")]
    Corrupt {
        /// What could not be read: field names and types only.
        what: &'static str,
    },
    /// The database was prepared by a newer Ringmaster.
    #[error(
        "a newer Ringmaster has prepared this database (its schema version is {stored}, this program knows {known}): \
         run the newer program"
    )]
    Newer {
        /// The database's schema version.
        stored: i32,
        /// This program's.
        known: i32,
    },
    /// Anything else: a fault of ours or of the server.
    #[error("the database refused the operation (kind {kind}, code {code:?})")]
    Internal {
        /// The driver's kind of error.
        kind: &'static str,
        /// The server's error code, where it gave one.
        code: Option<i32>,
    },
}

/// What is the matter with a database that cannot be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It has no room left: it can be read, and every write fails.
    Full,
    /// It takes no writes: there is no primary, or it is stepping down or shutting down.
    ReadOnly,
    /// It does not answer, or not in time.
    Away,
}

/// The server's code for a full disk.
const OUT_OF_DISK_SPACE: i32 = 14_031;
/// The server's code for a member that is no primary.
pub(super) const NOT_WRITABLE_PRIMARY: i32 = 10_107;
/// Server codes of one that is not (or soon no longer) a primary, and of one whose administrator has blocked writes (371).
const TAKES_NO_WRITES: [i32; 9] = [
    91,
    189,
    371,
    10_058,
    NOT_WRITABLE_PRIMARY,
    11_600,
    11_602,
    13_435,
    13_436,
];

impl StoreError {
    /// What is the matter with the database.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unavailable {
                code: Some(OUT_OF_DISK_SPACE),
            } => Trouble::Full,
            Self::Unavailable { code: Some(code) } if TAKES_NO_WRITES.contains(code) => {
                Trouble::ReadOnly
            }
            Self::Unavailable { .. }
            | Self::Duplicate { .. }
            | Self::Newer { .. }
            | Self::Corrupt { .. }
            | Self::Internal { .. } => Trouble::Away,
        }
    }

    /// True when trying the same again later can help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// True when the unique index `name` refused the write.
    #[must_use]
    pub fn is_duplicate_of(&self, name: &str) -> bool {
        matches!(self, Self::Duplicate { index, .. } if index == name)
    }
}

/// Result of a store operation.
pub type StoreResult<T> = Result<T, StoreError>;

/// Server codes that mean "not now": shutting down, no primary, write concern not met in time, time limit, interrupted, a
/// cursor or snapshot that a failover took away, disk full, writes blocked (371). As in MongoDB's `error_codes.yml`.
const PASSING_CODES: [i32; 37] = [
    6,
    7,
    24,
    43,
    46,
    50,
    64,
    74,
    89,
    91,
    100,
    112,
    133,
    134,
    175,
    189,
    202,
    217,
    225,
    237,
    239,
    246,
    251,
    262,
    290,
    365,
    371,
    9001,
    10058,
    10107,
    11600,
    11601,
    11602,
    13388,
    13435,
    13436,
    OUT_OF_DISK_SPACE,
];

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        if let Some(message) = duplicate_message(&error) {
            return Self::Duplicate {
                index: between(message, "index: ", " ").to_owned(),
            };
        }
        let code = code_of(&error);
        let passing = code.is_some_and(|code| PASSING_CODES.contains(&code))
            || error.contains_label("RetryableWriteError")
            || error.contains_label("TransientTransactionError")
            || error.contains_label("UnknownTransactionCommitResult");
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "a foreign, non-exhaustive enum"
        )]
        match error.kind.as_ref() {
            ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. } => Self::Unavailable { code },
            _ if passing => Self::Unavailable { code },
            ErrorKind::BsonDeserialization(_) | ErrorKind::InvalidResponse { .. } => {
                Self::Corrupt {
                    what: "unexpected form",
                }
            }
            ErrorKind::InvalidArgument { .. } => Self::Internal {
                kind: "argument",
                code,
            },
            ErrorKind::Command(_) => Self::Internal {
                kind: "command",
                code,
            },
            ErrorKind::Write(_) | ErrorKind::InsertMany(_) | ErrorKind::BulkWrite(_) => {
                Self::Internal {
                    kind: "write",
                    code,
                }
            }
            ErrorKind::Authentication { .. } => Self::Unavailable { code },
            _ => Self::Internal {
                kind: "other",
                code,
            },
        }
    }
}

/// The server's code of the error, where it gave one.
pub(super) fn code_of(error: &Error) -> Option<i32> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, non-exhaustive enum"
    )]
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        ErrorKind::InsertMany(many) => {
            let concern = many
                .write_concern_error
                .as_ref()
                .map(|concern| concern.code);
            let errors = many.write_errors.iter().flatten();
            concern.or_else(|| errors.map(|error| error.code).find(|code| *code != 11000))
        }
        _ => None,
    }
}

/// The server's text of a duplicate-key error (code 11000), which names the index. It also repeats the key.
fn duplicate_message(error: &Error) -> Option<&str> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, non-exhaustive enum"
    )]
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(write)) if write.code == 11000 => {
            Some(&write.message)
        }
        ErrorKind::Command(command) if command.code == 11000 => Some(&command.message),
        // Duplicates, and nothing worse: what was not written durably may yet be rolled back.
        ErrorKind::InsertMany(many) if many.write_concern_error.is_none() => many
            .write_errors
            .as_ref()
            .filter(|errors| errors.iter().all(|error| error.code == 11000))
            .and_then(|errors| errors.first())
            .map(|first| first.message.as_str()),
        _ => None,
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let Some((_, rest)) = text.split_once(start) else {
        return "";
    };
    rest.split(end).next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_read_and_the_key_is_not_kept() {
        let message = "E11000 duplicate key error collection: db.activeCalls index: slots_unique dup key: { slots: \"number/+15550100/3\" }";
        let error = StoreError::Duplicate {
            index: between(message, "index: ", " ").to_owned(),
        };
        assert!(error.is_duplicate_of("slots_unique"));
        assert!(!format!("{error} {error:?}").contains("15550100"));
    }
}
