//! The form with the file: what decides how rows are read comes first, then the file is handed on while it arrives.

use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::domain::list::ContactList;
use crate::error::{ApiError, ApiResult};
use crate::services::idempotency::{FormDigest, FormSaid};
use crate::services::imports::{Chunk, MAX_FILE_BYTES, NewList, UploadEnd, UploadFault};
use crate::state::AppState;

use super::Properties;

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

/// Imports the file of a form. `settle` decides about the form's other parts, before the file is read. With a `digest`, what
/// the whole form said is answered as well.
pub(super) async fn import(
    state: &AppState,
    request: Request,
    settle: impl FnOnce(Properties) -> ApiResult<NewList>,
    digest: Option<FormDigest>,
) -> ApiResult<(ContactList, Option<FormSaid>)> {
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
        digest,
    );
    match tokio::join!(reading, importing) {
        (Err(error), None) => Err(error),
        (read, Some(imported)) => Ok((imported?, read.ok().flatten())),
        (Ok(_), None) => Err(ApiError::internal("a form was read without its file")),
    }
}

/// Reads the form: the small parts, the file, and what comes behind it. Faults of the file go to the import, which then
/// has something to clean up; earlier ones are returned.
async fn read_form(
    mut form: Multipart,
    begin: impl FnOnce(Properties) -> ApiResult<bool>,
    chunks: mpsc::Sender<Chunk>,
    digest: Option<FormDigest>,
) -> ApiResult<Option<FormSaid>> {
    let mut parts = Parts {
        digest,
        ..Parts::default()
    };
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
    if let Err(error) = parts.properties().and_then(begin) {
        drain(&mut file).await;
        return Err(error);
    }
    // When the import has failed, it says why itself, and nobody waits for an uploader that has fallen silent.
    let mut end = tokio::select! {
        end = parts.forward(&mut file, &chunks) => end,
        () = chunks.closed() => Ok(()),
    };
    if chunks.is_closed() {
        drain(&mut file).await;
        return Ok(None);
    }
    drop(file);
    if end.is_ok() {
        end = tokio::select! {
            end = parts.behind(&mut form) => end,
            () = chunks.closed() => return Ok(None),
        };
    }
    let said = parts.digest.map(FormDigest::finish);
    let name = parts.late_name;
    let last = end.map(|()| UploadEnd {
        name,
        said: said.clone(),
    });
    drop(
        chunks
            .send(last.map_or_else(Chunk::Broken, Chunk::End))
            .await,
    );
    Ok(said)
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

fn upload_fault(error: &MultipartError) -> UploadFault {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => UploadFault::TooLarge(MAX_FILE_BYTES),
        _ => UploadFault::Incomplete,
    }
}

fn form_error(error: &MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::payload_too_large(MAX_FILE_BYTES),
        _ => ApiError::malformed(
            "invalid_form",
            "The form is broken or ended half-way; nothing was kept.",
        ),
    }
}

/// The small parts of the form.
#[derive(Default)]
struct Parts {
    /// Of the whole form, where that is wanted.
    digest: Option<FormDigest>,
    name: Option<String>,
    late_name: Option<String>,
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
        let text = small_part(&mut field).await?;
        let text = text.map_err(|reason| ApiError::invalid_field(path, reason))?;
        if let Some(digest) = &mut self.digest {
            digest.part(path);
            digest.feed(text.as_bytes());
        }
        match place.replace(text) {
            None => Ok(()),
            Some(_) => Err(ApiError::invalid_field(path, "is there more than once")),
        }
    }

    async fn forward(
        &mut self,
        file: &mut Field<'_>,
        chunks: &mpsc::Sender<Chunk>,
    ) -> Result<(), UploadFault> {
        if let Some(digest) = &mut self.digest {
            digest.part("file");
        }
        while let Some(bytes) = file.chunk().await.map_err(|error| upload_fault(&error))? {
            if let Some(digest) = &mut self.digest {
                digest.feed(&bytes);
            }
            if chunks.send(Chunk::Data(bytes)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes the name, if it comes behind the file. Any other part comes too late to have its effect; to ignore it would
    /// surprise.
    async fn behind(&mut self, form: &mut Multipart) -> Result<(), UploadFault> {
        while let Some(mut field) = form
            .next_field()
            .await
            .map_err(|error| upload_fault(&error))?
        {
            let known = ["name", "defaultCountry", "clientId", "file"];
            let part = known.into_iter().find(|known| field.name() == Some(*known));
            let part = part.unwrap_or("another part");
            let refused = |reason| UploadFault::Part(part.to_owned(), reason);
            if part != "name" {
                return Err(refused("must come before the file, and once"));
            }
            if self.name.is_some() || self.late_name.is_some() {
                return Err(refused("is there more than once"));
            }
            let text = small_part(&mut field).await;
            let text = text
                .map_err(|_| UploadFault::Incomplete)?
                .map_err(refused)?;
            if let Some(digest) = &mut self.digest {
                digest.part(part);
                digest.feed(text.as_bytes());
            }
            self.late_name = Some(text);
        }
        Ok(())
    }

    fn properties(&mut self) -> ApiResult<Properties> {
        let client_id = self.client_id.take().filter(|text| !text.is_empty());
        let client_id = client_id.map(|text| text.parse()).transpose();
        Ok(Properties {
            name: self.name.clone(),
            default_country: self.default_country.take(),
            client_id: client_id.map_err(|_| {
                ApiError::invalid_field("clientId", "must be 24 hexadecimal digits")
            })?,
        })
    }
}

/// A part that is not the file, or why it cannot be one.
async fn small_part(field: &mut Field<'_>) -> ApiResult<Result<String, &'static str>> {
    let mut text = Vec::new();
    while let Some(bytes) = field.chunk().await.map_err(|error| form_error(&error))? {
        text.extend_from_slice(&bytes);
        if text.len() > PART_LIMIT {
            return Ok(Err("is too long"));
        }
    }
    Ok(String::from_utf8(text).map_err(|_| "is not in UTF-8"))
}
