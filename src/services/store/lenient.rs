//! Reads values as the earlier system and other drivers wrote them: numbers of any kind, ids and times as text.

use bson::oid::ObjectId;
use bson::{Bson, DateTime as BsonTime, Document, doc};
use serde::{Deserialize, Deserializer};

use crate::domain::ids::{ClientId, Id};
use crate::domain::phone::PhoneNumber;

use super::oid;

/// A whole number that fits, in whatever kind it was stored; anything else counts as absent.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, non-exhaustive enum"
    )]
    Ok(match Bson::deserialize(deserializer)? {
        Bson::Int32(value) => u32::try_from(value).ok(),
        Bson::Int64(value) => u32::try_from(value).ok(),
        Bson::Double(value) => format!("{value:.0}").parse().ok(),
        Bson::String(value) => value.trim().parse().ok(),
        _ => None,
    })
}

/// A time, stored as a date or as RFC 3339 text; anything else counts as absent.
pub(super) fn time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BsonTime>, D::Error> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, non-exhaustive enum"
    )]
    Ok(match Bson::deserialize(deserializer)? {
        Bson::DateTime(value) => Some(value),
        Bson::String(value) => BsonTime::parse_rfc3339_str(value).ok(),
        _ => None,
    })
}

/// An id, stored as such or as 24 hex digits; anything else counts as absent.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ObjectId>, D::Error> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, non-exhaustive enum"
    )]
    Ok(match Bson::deserialize(deserializer)? {
        Bson::ObjectId(value) => Some(value),
        Bson::String(value) => ObjectId::parse_str(value).ok(),
        _ => None,
    })
}

/// A phone number as we store it, or as the earlier system did: in any form that people write with a country code. What we
/// have stored is not judged again by the numbering plans of today.
pub(super) fn phone(text: &str) -> Option<PhoneNumber> {
    PhoneNumber::try_from(text.to_owned())
        .or_else(|_| PhoneNumber::parse(text, None))
        .ok()
}

/// A condition that an id stored either way meets. It can use an index, and the index's order after it.
pub(super) fn either(id: impl Id) -> Document {
    let id = oid(id);
    doc! { "$in": [id, id.to_hex()] }
}

/// The filter of a client's own documents, or of everybody's.
pub(super) fn owned_by(scope: Option<ClientId>) -> Document {
    match scope {
        None => doc! {},
        Some(client) => doc! { "clientId": either(client) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sample {
        #[serde(default, deserialize_with = "number")]
        limit: Option<u32>,
        #[serde(default, deserialize_with = "time")]
        at: Option<BsonTime>,
        #[serde(default, deserialize_with = "id")]
        client: Option<ObjectId>,
    }

    #[test]
    fn numbers_are_read_as_stored_or_as_people_write_them() {
        let read = |text| phone(text).map(|number| number.as_str().to_owned());
        assert_eq!(read("+14155550123").as_deref(), Some("+14155550123"));
        // No numbering plan knows it any more.
        assert_eq!(read("+21012345678").as_deref(), Some("+21012345678"));
        assert_eq!(read("1 415 555 0123").as_deref(), Some("+14155550123"));
        assert_eq!(read("nobody"), None);
    }

    #[test]
    fn old_forms_load_and_junk_counts_as_absent() {
        let id = ObjectId::new();
        let at = BsonTime::from_millis(1_700_000_000_000);
        for (limit, time, client) in [
            (Bson::Int32(7), Bson::DateTime(at), Bson::ObjectId(id)),
            (
                Bson::Double(7.0),
                Bson::String(at.try_to_rfc3339_string().unwrap()),
                Bson::String(id.to_hex()),
            ),
            (Bson::String("7".into()), Bson::DateTime(at), id.into()),
        ] {
            let sample: Sample = bson::deserialize_from_document(
                doc! { "limit": limit, "at": time, "client": client },
            )
            .unwrap();
            assert_eq!(
                (sample.limit, sample.at, sample.client),
                (Some(7), Some(at), Some(id))
            );
        }
        let junk = doc! { "limit": -1, "at": "soon", "client": Bson::Null };
        for document in [junk, doc! {}] {
            let sample: Sample = bson::deserialize_from_document(document).unwrap();
            assert_eq!((sample.limit, sample.at, sample.client), (None, None, None));
        }
    }
}
