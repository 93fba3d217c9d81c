//! Who the pods of this node are: certificates, the keys behind them and how they stay fresh.
//!
//! A workload's identity comes from the pod's network namespace; this module turns it into an
//! X.509-SVID, keeps that certificate renewed and fails closed when there is none.

pub mod ca;
pub mod dump;
pub mod leaf;
pub mod schedule;
pub mod store;
pub mod svid;

pub use self::{
    ca::{
        CaError, CertificateAuthority, DEFAULT_SVID_TTL, LocalAuthority, LocalCa, RemoteAuthority,
    },
    leaf::{Leaf, LeafError, Validity},
    store::{CertificateInfo, IdentityHandle, IdentityStore, NoCertificate},
    svid::{Svid, SvidError},
};
