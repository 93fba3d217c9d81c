//! Who calls: a bearer token, and whom it belongs to.

mod bearer;
mod digest;
pub mod token_file;
mod token_review;

use std::{fmt, str::FromStr};

use futures_util::future::BoxFuture;
use mesh_api::{
    identity::{InvalidIdentity, Namespace, ServiceAccount},
    workload::NodeName,
};

pub use self::{
    bearer::token,
    token_file::{TokenFile, TokenFileError},
    token_review::TokenReviews,
};

/// Whom a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The service account.
    pub account: Account,
    /// Pod that the token was made for, if its issuer says so.
    pub pod: Option<PodReference>,
    /// Node of that pod, if known.
    pub node: Option<NodeName>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ServiceAccount,
}

/// Text that is not `NAMESPACE/SERVICE-ACCOUNT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAccount {
    /// There is no slash.
    #[error("write a service account as NAMESPACE/NAME")]
    Form,
    /// One of the names cannot be one.
    #[error(transparent)]
    Name(#[from] InvalidIdentity),
}

/// A pod, told apart from others that have or had its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReference {
    /// Name, in the namespace of the service account.
    pub name: String,
    /// Unique id.
    pub uid: String,
}

/// Says whom a token belongs to.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Returns whom `token` belongs to.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, AuthError>>;
}

/// Why a caller is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no token.
    #[error("no token; send the header \"authorization: Bearer TOKEN\" once")]
    NoToken,
    /// The token belongs to nobody, or not any more.
    #[error("the token is not valid")]
    Invalid,
    /// It cannot be found out now.
    #[error("tokens cannot be checked now: {0}")]
    Unavailable(String),
}

// === impl Account ===

impl FromStr for Account {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let (namespace, name) = text.split_once('/').ok_or(InvalidAccount::Form)?;
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
