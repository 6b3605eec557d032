//! What each service's errors mean to a caller. Closed enums: a new kind of failure must choose its status here.

use axum::http::StatusCode;

use crate::domain::list::ListStatus;
use crate::services::auth::AuthError;
use crate::services::clients::ClientError;
use crate::services::imports::{FileFault, ImportError, UploadFault};
use crate::services::lists::ListError;

use super::{ApiError, FieldFault};

/// Code of the answer to a request that is being worked on by another.
pub const REQUEST_IN_PROGRESS: &str = "request_in_progress";
/// Code of the refusal of a key that was used for another request.
pub const KEY_REUSED: &str = "idempotency_key_reused";
/// Seconds after which a request that is being worked on is worth another look.
pub const IN_PROGRESS_RETRY_AFTER: u32 = 5;
/// Seconds after which an import may have its turn.
const IMPORT_RETRY_AFTER: u32 = 15;

impl ApiError {
    /// 422: the `Idempotency-Key` was used for another request.
    pub fn key_reused() -> Self {
        let detail = "This Idempotency-Key was used for another request: take a new one for each.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, KEY_REUSED, detail)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unknown => Self::unauthorized("The key or token is not valid."),
            AuthError::Suspended => Self::new(
                StatusCode::FORBIDDEN,
                "client_suspended",
                "The client is suspended.",
            ),
            AuthError::Store(error) => error.into(),
        }
    }
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotFound => Self::not_found("client or key"),
            ClientError::Invalid(faults) => Self::invalid(
                faults
                    .into_iter()
                    .map(|fault| FieldFault::at(fault.path, fault.reason)),
            ),
            ClientError::OverGuaranteed { free } => {
                let detail = format!(
                    "All guarantees together may not be more than GLOBAL_MAX_CALLS: this client's may be {free} at most."
                );
                let reason = format!("must be {free} at most");
                Self::conflict("guarantees_exhausted", detail)
                    .with_errors([FieldFault::at("guaranteedCalls", reason)])
            }
            ClientError::Store(error) => error.into(),
        }
    }
}

impl From<ImportError> for ApiError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Name(reason) => Self::invalid_field("name", reason),
            ImportError::NoClient => Self::invalid_field("clientId", "there is no such client"),
            ImportError::Upload(fault) => fault.into(),
            ImportError::File(fault) => fault.into(),
            ImportError::NothingUsable { total, errors } => {
                let detail = format!("None of the {total} rows can be dialed; nothing was kept.");
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "no_valid_rows", detail)
                    .with_errors(errors.into_iter().map(FieldFault::from))
            }
            ImportError::InProgress => Self::conflict(
                REQUEST_IN_PROGRESS,
                "An earlier request with this Idempotency-Key is still being worked on.",
            )
            .with_retry_after(IN_PROGRESS_RETRY_AFTER),
            ImportError::OtherUpload => Self::key_reused(),
            ImportError::Busy => Self::too_many_requests(
                "Other imports are running; nothing of this one was kept.",
                IMPORT_RETRY_AFTER,
            ),
            ImportError::Stopping | ImportError::Removed => Self::unavailable(
                "The import was interrupted; nothing of it was kept.",
                IMPORT_RETRY_AFTER,
            )
            .with_cause(error),
            ImportError::Store(error) => error.into(),
        }
    }
}

impl From<UploadFault> for ApiError {
    fn from(fault: UploadFault) -> Self {
        match fault {
            UploadFault::Incomplete => Self::malformed(
                "upload_incomplete",
                "The upload ended before it was complete; nothing of it was kept.",
            ),
            UploadFault::TooLarge(limit) => Self::payload_too_large(limit),
            UploadFault::Part(part, reason) => Self::invalid_field(part, reason),
        }
    }
}

impl From<FileFault> for ApiError {
    fn from(fault: FileFault) -> Self {
        let (code, line) = match &fault {
            FileFault::NotCsv { line, .. } => ("not_csv", *line),
            FileFault::Header(_) => ("bad_header", Some(1)),
            FileFault::NoRows => ("empty_list", None),
            FileFault::TooManyRows => ("too_many_rows", None),
        };
        let error = FieldFault {
            line,
            reason: fault.to_string(),
            ..FieldFault::at("file", "")
        };
        let detail = "The file cannot be a contact list; nothing of it was kept.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail).with_errors([error])
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::NotFound => Self::not_found("list"),
            ListError::NotReady(status) => {
                let status = match status {
                    ListStatus::Importing => "importing",
                    ListStatus::Ready => "ready",
                    ListStatus::Failed => "failed",
                };
                let detail = format!("The list is {status}; it can be used once it is ready.");
                Self::conflict("list_not_ready", detail)
            }
            ListError::InUse => Self::conflict(
                "list_in_use",
                "A campaign that is scheduled, running or paused uses the list: cancel it first.",
            ),
            ListError::Store(error) => error.into(),
        }
    }
}
