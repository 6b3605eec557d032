//! Typed ids: 24 hex digits on every wire, twelve bytes inside. A swapped id does not compile.

use std::fmt;
use std::str::FromStr;

/// The text was not 24 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 24 hexadecimal digits")]
pub struct InvalidId;

fn parse_hex(text: &str) -> Result<[u8; 12], InvalidId> {
    let digits = text.as_bytes();
    if digits.len() != 24 {
        return Err(InvalidId);
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(InvalidId),
    };
    let mut bytes = [0; 12];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
    }
    Ok(bytes)
}

/// What every id can do; lets the store make and convert ids of any kind.
pub trait Id: Copy {
    /// The id with these bytes.
    fn from_bytes(bytes: [u8; 12]) -> Self;
    /// The bytes of this id.
    fn bytes(self) -> [u8; 12];
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 12]);

        impl Id for $name {
            fn from_bytes(bytes: [u8; 12]) -> Self {
                Self(bytes)
            }
            fn bytes(self) -> [u8; 12] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_hex(text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A client: the tenant that owns lists, campaigns and calls.
    ClientId
);
id!(
    /// A container: one run of this program.
    ContainerId
);
id!(
    /// An API key's record (never the key itself).
    KeyId
);
id!(
    /// A contact list.
    ListId
);
id!(
    /// A campaign.
    CampaignId
);
id!(
    /// One attempt to reach one contact; it travels in the carrier's callback URLs.
    CallId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_round_and_junk_is_refused() {
        let id: CallId = "0123456789abcdef01234567".parse().unwrap();
        assert_eq!(id.to_string(), "0123456789abcdef01234567");
        for junk in [
            "",
            "0123456789abcdef0123456",
            "0123456789abcdef0123456g",
            "{\"$gt\":\"\"}",
            "é123456789abcdef0123456",
        ] {
            assert_eq!(junk.parse::<CallId>(), Err(InvalidId), "{junk}");
        }
    }
}
