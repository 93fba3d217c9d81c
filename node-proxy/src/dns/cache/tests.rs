use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA, TXT},
    },
};
use proptest::prelude::*;

use super::*;

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn name() -> Name {
    Name::from_ascii("other.example.").unwrap()
}

fn query(id: u16) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(), RecordType::A));
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn address(ttl: u32) -> Record {
    Record::from_rdata(name(), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn zone(ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name(), name(), 1, 7200, 3600, 86400, minimum);
    Record::from_rdata(Name::from_ascii("example.").unwrap(), ttl, RData::SOA(soa))
}

fn answer(code: ResponseCode, answers: &[Record], authorities: &[Record]) -> Message {
    let mut message = Message::response(1, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(Query::query(name(), RecordType::A));
    message.add_answers(answers.iter().cloned());
    message.add_authorities(authorities.iter().cloned());
    message
}

/// Returns for how long an answer is given again, in whole seconds.
fn kept_for(said: &[u8]) -> u64 {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let asked = bytes(&query(1));
    cache.put(SERVER, &asked, said, start).unwrap();
    let fresh = |second| cache.get(SERVER, &asked, start + seconds(second)).is_some();
    let end = (0..100).find(|second| !fresh(*second)).unwrap();
    assert!((end..100).all(|second| !fresh(second)));
    end
}

#[test]
fn an_answer_is_given_again_with_the_time_that_is_left_of_it() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let mut said = answer(ResponseCode::NoError, &[address(20), address(300)], &[]);
    said.set_edns(Edns::new());
    cache.put(SERVER, &bytes(&query(1)), &bytes(&said), start).unwrap();
    let again = cache.get(SERVER, &bytes(&query(2)), start + seconds(7)).unwrap();
    let mut expected = answer(ResponseCode::NoError, &[address(13), address(293)], &[]);
    expected.set_edns(Edns::new());
    expected.metadata.id = 2;
    assert_eq!(Message::from_vec(&again).unwrap(), expected);
}

#[test]
fn answers_are_kept_as_long_as_they_say_and_not_beyond_half_a_minute() {
    use ResponseCode::{NXDomain, NoError, ServFail};

    let mut cut = answer(NoError, &[address(20)], &[]);
    cut.metadata.truncation = true;
    let mut later = answer(NoError, &[address(20)], &[]);
    later.set_edns(Edns::new());
    later.metadata.response_code = ResponseCode::BADVERS;
    let text = RData::TXT(TXT::new(vec!["x".repeat(250); 5]));
    let long = answer(NoError, &[Record::from_rdata(name(), 20, text)], &[]);
    for (said, expected) in [
        (answer(NoError, &[address(20)], &[]), 20),
        (answer(NoError, &[address(20), address(3)], &[]), 3),
        (answer(NoError, &[address(20)], &[zone(9, 1)]), 1),
        (answer(NoError, &[address(86_400)], &[]), 30),
        (answer(NoError, &[address(0)], &[]), 0),
        (answer(NoError, &[address(1 << 31)], &[]), 0),
        (answer(NXDomain, &[], &[zone(20, 5)]), 5),
        (answer(NXDomain, &[], &[zone(4, 5)]), 4),
        (answer(NoError, &[], &[zone(20, 5)]), 5),
        (answer(NXDomain, &[], &[]), 0),
        (answer(NXDomain, &[address(20)], &[]), 0),
        (answer(NoError, &[], &[address(20)]), 0),
        (answer(ServFail, &[address(20)], &[zone(20, 20)]), 0),
        (cut, 0),
        (later, 0),
        (long, 0),
        (query(1), 0),
    ] {
        assert_eq!(kept_for(&bytes(&said)), expected, "{said}");
    }
    let said = bytes(&answer(NoError, &[address(20)], &[]));
    for length in 0..said.len() {
        assert_eq!(kept_for(&said[..length]), 0, "{length} bytes of {}", said.len());
    }
}

#[test]
fn whoever_asks_differently_or_elsewhere_is_told_by_the_server_itself() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let said = bytes(&answer(ResponseCode::NoError, &[address(20)], &[]));
    cache.put(SERVER, &bytes(&query(1)), &said, now).unwrap();
    let mut recursive = query(1);
    recursive.metadata.recursion_desired = true;
    let mut extended = query(1);
    extended.set_edns(Edns::new());
    for other in [recursive, extended] {
        assert_eq!(cache.get(SERVER, &bytes(&other), now), None);
    }
    assert_eq!(cache.get("10.96.0.11".parse().unwrap(), &bytes(&query(1)), now), None);
    assert_eq!(cache.get(SERVER, &[], now), None);
    assert!(cache.get(SERVER, &bytes(&query(1)), now).is_some());
}

#[test]
fn a_full_cache_takes_nothing_until_something_is_stale() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let said = bytes(&answer(ResponseCode::NoError, &[address(20)], &[]));
    let asked = |number: usize| {
        let name = Name::from_ascii(format!("n{number}.example.")).unwrap();
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name, RecordType::A));
        bytes(&message)
    };
    for number in 0..MAX_CACHED_ANSWERS {
        cache.put(SERVER, &asked(number), &said, start).unwrap();
    }
    assert_eq!(cache.put(SERVER, &asked(MAX_CACHED_ANSWERS), &said, start), Err(Full));
    cache.put(SERVER, &asked(0), &said, start + seconds(10)).unwrap();
    cache.put(SERVER, &asked(MAX_CACHED_ANSWERS), &said, start + seconds(20)).unwrap();
    assert_eq!(cache.answers.len(), 2);
}

proptest! {
    #[test]
    fn no_answer_harms_the_cache(
        counts in prop::array::uniform4(0_u16..4),
        rest in prop::collection::vec(any::<u8>(), 0..200),
        age in 0_u64..40,
    ) {
        let mut said = vec![0, 1, 0x80, 0];
        said.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        said.extend(rest);
        let (mut cache, start) = (Cache::default(), Instant::now());
        let asked = bytes(&query(1));
        cache.put(SERVER, &asked, &said, start).unwrap();
        let again = cache.get(SERVER, &asked, start + seconds(age));
        prop_assert!(again.is_none_or(|again| again.len() == said.len()));
    }

    #[test]
    fn only_the_times_of_an_answer_change(
        ttls in prop::collection::vec(1_u32..100_000, 1..20),
        age in 0_u64..30,
    ) {
        let records = |age| {
            ttls.iter().map(|ttl| address(ttl.saturating_sub(age))).collect::<Vec<_>>()
        };
        let (mut cache, start) = (Cache::default(), Instant::now());
        let said = bytes(&answer(ResponseCode::NoError, &records(0), &[]));
        cache.put(SERVER, &bytes(&query(1)), &said, start).unwrap();
        let again = cache.get(SERVER, &bytes(&query(1)), start + seconds(age));
        let left = ttls.iter().copied().min().unwrap_or_default().min(30);
        let elapsed = u32::try_from(age).unwrap();
        let expected = bytes(&answer(ResponseCode::NoError, &records(elapsed), &[]));
        prop_assert_eq!(again, (elapsed < left).then_some(expected));
    }
}
