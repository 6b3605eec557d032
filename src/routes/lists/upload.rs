//! The form with the file: its small parts are read first, then the file is handed on while it arrives.

use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::domain::list::ContactList;
use crate::error::{ApiError, ApiResult};
use crate::services::imports::{Chunk, NewList, UploadFault};
use crate::state::AppState;

use super::{FILE_LIMIT, Properties};

/// Longest part of the form that is not the file.
const PART_LIMIT: usize = 4096;
/// Time for each of them to arrive.
const PART_TIME: Duration = Duration::from_secs(30);
/// Chunks of the file on their way to the import.
const CHUNKS: usize = 4;
/// What is still taken from the uploader of a file that was refused, so that it reads our answer instead of a reset.
const DRAIN_LIMIT: usize = 8 * 1024 * 1024;
/// For how long.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Whether the body is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| {
        value
            .to_ascii_lowercase()
            .starts_with("multipart/form-data")
    })
}

/// Imports the file of a form. `settle` decides about the form's other parts, before the file is read.
pub(super) async fn import(
    state: &AppState,
    request: Request,
    settle: impl FnOnce(Properties) -> ApiResult<NewList>,
) -> ApiResult<ContactList> {
    let form = Multipart::from_request(request, state)
        .await
        .map_err(|_| ApiError::malformed("invalid_form", "The form has no boundary."))?;
    let (tell, told) = oneshot::channel();
    let (chunks, upload) = mpsc::channel(CHUNKS);
    let importing = async {
        match told.await {
            Ok(new) => Some(state.imports.import_csv(new, upload).await),
            Err(_) => None,
        }
    };
    let reading = read_form(
        form,
        |properties| Ok(tell.send(settle(properties)?).is_ok()),
        chunks,
    );
    match tokio::join!(reading, importing) {
        (Err(error), None) => Err(error),
        (_, Some(imported)) => Ok(imported?),
        (Ok(()), None) => Err(ApiError::internal("a form was read without its file")),
    }
}

/// Reads the form: the small parts, the file, and what comes behind it. Faults of the file go to the import, which then
/// has something to clean up; earlier ones are returned.
async fn read_form(
    mut form: Multipart,
    begin: impl FnOnce(Properties) -> ApiResult<bool>,
    chunks: mpsc::Sender<Chunk>,
) -> ApiResult<()> {
    let mut parts = Parts::default();
    let mut file = loop {
        let part = tokio::time::timeout(PART_TIME, form.next_field()).await;
        let part = part.map_err(|_| ApiError::from(UploadFault::Incomplete))?;
        let Some(field) = part.map_err(|error| form_error(&error))? else {
            return Err(ApiError::invalid_field("file", "is missing"));
        };
        if field.name() == Some("file") {
            break field;
        }
        let taken = tokio::time::timeout(PART_TIME, parts.take(field)).await;
        taken.map_err(|_| ApiError::from(UploadFault::Incomplete))??;
    };
    if let Err(error) = parts.into_properties().and_then(begin) {
        drain(&mut file).await;
        return Err(error);
    }
    // When the import has failed, it says why itself, and nobody waits for an uploader that has fallen silent.
    let mut end = tokio::select! {
        end = forward(&mut file, &chunks) => end,
        () = chunks.closed() => Ok(()),
    };
    if chunks.is_closed() {
        drain(&mut file).await;
        return Ok(());
    }
    drop(file);
    if end.is_ok() {
        end = tokio::select! {
            end = nothing_behind(&mut form) => end,
            () = chunks.closed() => return Ok(()),
        };
    }
    let last = end.map_or_else(Chunk::Broken, |()| Chunk::End);
    drop(chunks.send(last).await);
    Ok(())
}

async fn forward(file: &mut Field<'_>, chunks: &mpsc::Sender<Chunk>) -> Result<(), UploadFault> {
    while let Some(bytes) = file.chunk().await.map_err(|error| upload_fault(&error))? {
        if chunks.send(Chunk::Data(bytes)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes a little more of a file that nobody wants.
async fn drain(file: &mut Field<'_>) {
    let draining = async {
        let mut drained = 0;
        while let Ok(Some(bytes)) = file.chunk().await {
            drained += bytes.len();
            if drained > DRAIN_LIMIT {
                return;
            }
        }
    };
    drop(tokio::time::timeout(DRAIN_TIME, draining).await);
}

/// A part behind the file comes too late to have its effect; to ignore it would surprise.
async fn nothing_behind(form: &mut Multipart) -> Result<(), UploadFault> {
    match form.next_field().await {
        Ok(None) => Ok(()),
        Ok(Some(field)) => {
            let known = ["name", "defaultCountry", "clientId", "file"];
            let name = known.into_iter().find(|known| field.name() == Some(*known));
            Err(UploadFault::Late(name.unwrap_or("another part").to_owned()))
        }
        Err(error) => Err(upload_fault(&error)),
    }
}

fn upload_fault(error: &MultipartError) -> UploadFault {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => UploadFault::TooLarge(FILE_LIMIT),
        _ => UploadFault::Incomplete,
    }
}

fn form_error(error: &MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::payload_too_large(FILE_LIMIT),
        _ => ApiError::malformed(
            "invalid_form",
            "The form is broken or ended half-way; nothing was kept.",
        ),
    }
}

/// The parts of the form before the file.
#[derive(Default)]
struct Parts {
    name: Option<String>,
    default_country: Option<String>,
    client_id: Option<String>,
}

impl Parts {
    async fn take(&mut self, mut field: Field<'_>) -> ApiResult<()> {
        let (place, path) = match field.name() {
            Some("name") => (&mut self.name, "name"),
            Some("defaultCountry") => (&mut self.default_country, "defaultCountry"),
            Some("clientId") => (&mut self.client_id, "clientId"),
            other => {
                let path = other.unwrap_or_default().to_owned();
                return Err(ApiError::invalid_field(path, "is not known here"));
            }
        };
        let mut text = Vec::new();
        while let Some(bytes) = field.chunk().await.map_err(|error| form_error(&error))? {
            text.extend_from_slice(&bytes);
            if text.len() > PART_LIMIT {
                return Err(ApiError::invalid_field(path, "is too long"));
            }
        }
        let text = String::from_utf8(text)
            .map_err(|_| ApiError::invalid_field(path, "is not in UTF-8"))?;
        match place.replace(text) {
            None => Ok(()),
            Some(_) => Err(ApiError::invalid_field(path, "is there more than once")),
        }
    }

    fn into_properties(self) -> ApiResult<Properties> {
        let missing = || ApiError::invalid_field("name", "is missing, or comes behind the file");
        let client_id = self.client_id.filter(|text| !text.is_empty());
        let client_id = client_id.map(|text| text.parse()).transpose();
        Ok(Properties {
            name: self.name.ok_or_else(missing)?,
            default_country: self.default_country,
            client_id: client_id.map_err(|_| {
                ApiError::invalid_field("clientId", "must be 24 hexadecimal digits")
            })?,
        })
    }
}
