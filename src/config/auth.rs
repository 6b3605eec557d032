//! Settings of authentication, and which of its secrets are too short.

use secrecy::{ExposeSecret, SecretString};

/// Authentication settings.
#[derive(Debug, Clone)]
pub struct Auth {
    /// `ADMIN_API_KEY`.
    pub admin_key: Option<SecretString>,
    /// `JWT_SECRET`: HS256; absent = no JWTs.
    pub jwt_secret: Option<SecretString>,
}

impl Auth {
    /// The variables whose secret could be guessed: shorter than 32 bytes, as RFC 7518 (3.2) asks of HS256.
    #[must_use]
    pub fn short_secrets(&self) -> Vec<&'static str> {
        let secrets = [
            ("ADMIN_API_KEY", &self.admin_key),
            ("JWT_SECRET", &self.jwt_secret),
        ];
        let is_short = |secret: &SecretString| secret.expose_secret().len() < 32;
        let short = secrets
            .into_iter()
            .filter(|(_, secret)| secret.as_ref().is_some_and(is_short));
        short.map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_can_be_guessed_are_named() {
        let secret = |length: usize| Some(SecretString::from("s".repeat(length)));
        let named = |admin_key, jwt_secret| {
            let auth = Auth {
                admin_key,
                jwt_secret,
            };
            auth.short_secrets()
        };
        assert_eq!(named(secret(31), secret(32)), ["ADMIN_API_KEY"]);
        assert_eq!(named(secret(32), secret(31)), ["JWT_SECRET"]);
        assert!(named(None, None).is_empty());
    }
}
