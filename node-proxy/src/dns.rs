//! DNS messages: what is asked, and answers to it. Pure, and written for input from anyone.

pub mod message;
mod raw;

pub use self::{
    message::{Addresses, Malformed, Question, Request, read},
    raw::{Id, failure, is_answer, known_to_exist},
};
