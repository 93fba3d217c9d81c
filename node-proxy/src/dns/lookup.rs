//! Queries of our own for the addresses of a name, and what answers to them say.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{Name, RData, RecordType},
};

use super::message::{Addresses, OFFERED_PAYLOAD};

/// Returns the query for addresses of `hostname`; none if that is no name.
pub fn lookup(hostname: &str, family: Addresses) -> Option<Vec<u8>> {
    let mut name = Name::from_ascii(hostname).ok()?;
    // It is whole as it is.
    name.set_fqdn(true);
    let kind = match family {
        Addresses::V4 => RecordType::A,
        Addresses::V6 => RecordType::AAAA,
    };
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(OFFERED_PAYLOAD);
    message.set_edns(edns);
    message.to_vec().ok()
}

/// Returns the longest answer to such a query, in bytes.
pub fn longest_answer() -> usize {
    usize::from(OFFERED_PAYLOAD)
}

/// Returns the addresses that an answer gives, whatever aliases lead to them. Of an answer that is cut
/// those that are left will do.
pub fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    let Ok(message) = Message::from_vec(answer) else { return Vec::new() };
    #[expect(clippy::wildcard_enum_match_arm, reason = "there are dozens of kinds of records")]
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Request, read};

    #[test]
    fn what_is_asked_is_answered_through_aliases_and_for_one_family() {
        let query = |family| lookup("db.Example", family).unwrap();
        let Ok(Request::Question(question)) = read(&query(Addresses::V4)) else { panic!() };
        assert_eq!(
            (question.name().as_str(), question.addresses()),
            ("db.example", Some(Addresses::V4))
        );
        let both = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let answer = question.answer(&both, Some("real.example"), longest_answer()).unwrap();
        assert_eq!(addresses(&answer), [both[0]]);
        let Ok(Request::Question(question)) = read(&query(Addresses::V6)) else { panic!() };
        let answer = question.answer(&both, None, longest_answer()).unwrap();
        assert_eq!(addresses(&answer), [both[1]]);
        assert_eq!(
            addresses(&question.answer(&[], None, longest_answer()).unwrap()),
            [] as [IpAddr; 0]
        );
    }

    #[test]
    fn what_is_no_name_is_not_asked_for_and_what_is_no_answer_says_nothing() {
        for bad in ["a..b", &"x".repeat(64), &"x.".repeat(200)] {
            assert_eq!(lookup(bad, Addresses::V4), None, "{bad}");
        }
        for bad in [&[][..], &[0; 12], &[0xff; 600]] {
            assert_eq!(addresses(bad), [] as [IpAddr; 0]);
        }
    }
}
