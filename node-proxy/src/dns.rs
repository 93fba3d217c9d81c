//! DNS messages: what is asked, and answers to it. Pure, and written for input from anyone.

mod cache;
mod lifetime;
mod lookup;
pub mod message;
mod raw;

pub use self::{
    cache::{Cache, Full},
    lookup::{addresses, longest_answer, lookup},
    message::{Addresses, Malformed, Question, Request, read},
    raw::{Id, failure, is_answer, known_to_exist},
};
