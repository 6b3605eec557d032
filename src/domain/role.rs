//! Who asks, and what that lets them see and change (promise P7).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::ClientId;

/// What a key or token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, for all clients.
    Admin,
    /// Everything that concerns its own client's work.
    Operator,
    /// Reads its own client's data, with phone numbers masked.
    Viewer,
}

impl Role {
    /// The name on every wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

/// An authenticated caller. An admin belongs to no client, everybody else to exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    client: Option<ClientId>,
    role: Role,
}

/// The resource belongs to someone else, which is told as "there is no such thing".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such thing for this caller")]
pub struct NotYours;

/// Whose resources a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of all clients.
    All,
    /// Those of one client.
    Client(ClientId),
}

impl Principal {
    /// The caller that may do everything.
    pub const ADMIN: Self = Self {
        client: None,
        role: Role::Admin,
    };

    /// A caller, unless the role and the client do not go together.
    #[must_use]
    pub fn new(client: Option<ClientId>, role: Role) -> Option<Self> {
        ((role == Role::Admin) == client.is_none()).then_some(Self { client, role })
    }

    /// The client that the caller belongs to; `None` for admins.
    #[must_use]
    pub fn client(self) -> Option<ClientId> {
        self.client
    }

    /// Whether the caller may do what is not any single client's business.
    #[must_use]
    pub fn is_admin(self) -> bool {
        self.role == Role::Admin
    }

    /// Whether the caller may change anything.
    #[must_use]
    pub fn may_write(self) -> bool {
        self.role != Role::Viewer
    }

    /// Whether phone numbers are shown to the caller in full.
    #[must_use]
    pub fn may_see_numbers(self) -> bool {
        self.role != Role::Viewer
    }

    /// What the caller may see, narrowed to the client that the request names, if it names one.
    ///
    /// # Errors
    /// [`NotYours`] when it names another client than the caller's.
    pub fn scope(self, requested: Option<ClientId>) -> Result<Scope, NotYours> {
        match (self.client, requested) {
            (None, None) => Ok(Scope::All),
            (None, Some(client)) => Ok(Scope::Client(client)),
            (Some(own), Some(other)) if own != other => Err(NotYours),
            (Some(own), _) => Ok(Scope::Client(own)),
        }
    }
}

impl Scope {
    /// The client, where the scope is one.
    #[must_use]
    pub fn client(self) -> Option<ClientId> {
        match self {
            Self::All => None,
            Self::Client(client) => Some(client),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::Id;
    use super::*;

    #[test]
    fn a_role_belongs_to_a_client_unless_it_is_admin() {
        let client = ClientId::from_bytes([1; 12]);
        assert_eq!(Principal::new(None, Role::Admin), Some(Principal::ADMIN));
        assert_eq!(Principal::new(Some(client), Role::Admin), None);
        for role in [Role::Operator, Role::Viewer] {
            assert_eq!(Principal::new(None, role), None);
            assert!(Principal::new(Some(client), role).is_some());
        }
    }

    #[test]
    fn members_see_their_own_client_only() {
        let own = ClientId::from_bytes([1; 12]);
        let other = ClientId::from_bytes([2; 12]);
        let viewer = Principal::new(Some(own), Role::Viewer).unwrap();
        assert_eq!(viewer.scope(None), Ok(Scope::Client(own)));
        assert_eq!(viewer.scope(Some(own)), Ok(Scope::Client(own)));
        assert_eq!(viewer.scope(Some(other)), Err(NotYours));
        assert!(!viewer.may_write() && !viewer.may_see_numbers());
        assert_eq!(Principal::ADMIN.scope(None), Ok(Scope::All));
        assert_eq!(
            Principal::ADMIN.scope(Some(other)),
            Ok(Scope::Client(other))
        );
        assert_eq!(Scope::All.client(), None);
        assert_eq!(Scope::Client(own).client(), Some(own));
    }
}
