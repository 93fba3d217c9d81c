//! DNS messages, from pods and from name servers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use fairlead_node::dns::{Cache, Id, Question, Request, failure, is_answer, known_to_exist, read};
use hickory_proto::op::{Message, ResponseCode};

/// Addresses of each family that a name has: more than fit in the shortest answer.
const ADDRESSES: u16 = 60;

/// Longest name in its text form: each byte may be written as four characters.
const MAX_NAME: usize = 4 * 255;

/// The input is the length of a message, the message, and another one that claims to answer it.
pub fn dns_message(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (message, other) = rest.split_at(length);
    if let Ok(request) = read(message) {
        refusal(message);
        if let Request::Question(question) = &request {
            answers(message, question, request.payload());
            ports(message, question, request.payload());
        }
    } else {
        assert_eq!(failure(message), None);
    }
    passed_on(message, other);
    kept(message, other);
}

/// A question that cannot be served is refused with its own number and nothing else.
fn refusal(message: &[u8]) {
    let said = failure(message).unwrap_or_default();
    assert!(said.len() <= message.len() && is_answer(&said, message));
    if let Ok(said) = Message::from_vec(&said) {
        assert_eq!(said.metadata.response_code, ResponseCode::ServFail);
        assert!(said.answers.is_empty());
    }
}

/// An answer fits, can be read, and belongs to its question.
fn answers(message: &[u8], question: &Question, limit: usize) {
    assert!(question.name().len() <= MAX_NAME);
    let v4 = (0..ADDRESSES).map(|n| IpAddr::from(Ipv4Addr::from(u32::from(n))));
    let v6 = (0..ADDRESSES).map(|n| IpAddr::from(Ipv6Addr::from(u128::from(n))));
    let addresses: Vec<_> = v4.chain(v6).collect();
    for alias_of in [None, Some("web.shop.svc.cluster.local")] {
        let answer = question.answer(&addresses, alias_of, limit);
        let answer = answer.unwrap_or_else(|error| panic!("{question:?}: {error}"));
        assert!(answer.len() <= limit && is_answer(&answer, message), "{question:?}");
        let read = Message::from_vec(&answer);
        let read = read.unwrap_or_else(|error| panic!("{question:?}: {error}"));
        let aliases = usize::from(alias_of.is_some());
        let addresses = read.answers.len() - aliases;
        let asked = question.addresses().map_or(0, |_| usize::from(ADDRESSES));
        assert!(addresses == asked || read.metadata.truncation, "{read:?}");
    }
}

/// An answer with ports does, too, and leaves out addresses before ports.
fn ports(message: &[u8], question: &Question, limit: usize) {
    let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let host = "web.shop.svc.cluster.local";
    for count in [1, ADDRESSES] {
        let numbers: Vec<_> = (0..count).collect();
        for alias_of in [None, Some("_http._tcp.web")] {
            let answer = question.answer_ports(&numbers, host, &addresses, alias_of, limit);
            let answer = answer.unwrap_or_else(|error| panic!("{question:?}: {error}"));
            assert!(answer.len() <= limit && is_answer(&answer, message), "{question:?}");
            let read = Message::from_vec(&answer);
            let read = read.unwrap_or_else(|error| panic!("{question:?}: {error}"));
            let ports = read.answers.len() - usize::from(alias_of.is_some());
            assert_eq!(read.metadata.truncation, ports < numbers.len(), "{read:?}");
            assert!(!read.metadata.truncation || read.additionals.is_empty(), "{read:?}");
        }
    }
}

/// Of what is passed on, only the number and a denial of existence ever change.
fn passed_on(question: &[u8], answer: &[u8]) {
    let _ = is_answer(answer, question);
    let mut changed = answer.to_vec();
    known_to_exist(&mut changed);
    if let Some(id) = Id::of(answer) {
        Id(!id.0).put(&mut changed);
        assert_eq!(Id::of(&changed), Some(Id(!id.0)));
        id.put(&mut changed);
    }
    let differs = |(at, (was, is)): (usize, (&u8, &u8))| (was != is).then_some(at);
    let places: Vec<_> = answer.iter().zip(&changed).enumerate().filter_map(differs).collect();
    assert!(matches!(places[..], [] | [3]), "{places:?}");
}

/// An answer that is kept answers the same query as before: at once to the byte, later but for its
/// times to live.
fn kept(query: &[u8], answer: &[u8]) {
    if !is_answer(answer, query) {
        return;
    }
    let (server, now) = (IpAddr::from(Ipv4Addr::LOCALHOST), Instant::now());
    let mut cache = Cache::default();
    assert_eq!(cache.put(server, query, answer, now), Ok(()));
    let Some(again) = cache.get(server, query, now) else { return };
    assert_eq!(again, answer);
    let later = now + Duration::from_secs(1);
    if let Some(older) = cache.get(server, query, later) {
        assert!(older.len() == answer.len() && is_answer(&older, query), "{older:?}");
    }
}
