use hickory_proto::op::ResponseCode;
use proptest::prelude::*;

use super::*;
use crate::dns::{Id, failure, is_answer, known_to_exist};

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn question(message: &Message) -> Question {
    match read(&message.to_vec().unwrap()).unwrap() {
        Request::Question(question) => *question,
        Request::Other => panic!("not an ordinary question"),
    }
}

fn addresses(count: u8) -> Vec<IpAddr> {
    (0..count)
        .flat_map(|n| {
            [IpAddr::from([10, 0, 0, n]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)])]
        })
        .collect()
}

fn answer(question: &Question, count: u8, alias: Option<&str>, limit: usize) -> Message {
    let bytes = question.answer(&addresses(count), alias, limit).unwrap();
    assert!(bytes.len() <= limit, "{} bytes, with a limit of {limit}", bytes.len());
    Message::from_vec(&bytes).unwrap()
}

fn ports(
    asked: &Message,
    ports: &[u16],
    addresses: &[IpAddr],
    alias: Option<&str>,
    limit: usize,
) -> Message {
    let question = question(asked);
    let bytes = question.answer_ports(ports, "web.shop", addresses, alias, limit).unwrap();
    assert!(bytes.len() <= limit, "{} bytes, with a limit of {limit}", bytes.len());
    Message::from_vec(&bytes).unwrap()
}

fn texts(records: &[Record]) -> Vec<String> {
    let text = |r: &Record| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data);
    records.iter().map(text).collect()
}

#[test]
fn a_port_is_answered_with_its_host_and_the_addresses_of_that() {
    let asked = query("_Https._tcp.Web.Shop.", RecordType::SRV);
    assert!(question(&asked).is_for_ports());
    assert!(!question(&query("web.shop.", RecordType::A)).is_for_ports());
    let said = ports(&asked, &[443], &addresses(1), None, 512);
    assert!(said.metadata.authoritative && !said.metadata.truncation);
    assert_eq!(texts(&said.answers), ["_Https._tcp.Web.Shop. 30 SRV 0 0 443 web.shop."]);
    let along = ["web.shop. 30 A 10.0.0.0", "web.shop. 30 AAAA fd00::"];
    assert_eq!(texts(&said.additionals), along);

    let said = ports(&asked, &[443, 8443], &[], Some("_https._tcp.web"), 512);
    let expected = [
        "_Https._tcp.Web.Shop. 30 CNAME _https._tcp.web.",
        "_https._tcp.web. 30 SRV 0 0 443 web.shop.",
        "_https._tcp.web. 30 SRV 0 0 8443 web.shop.",
    ];
    assert_eq!(texts(&said.answers), expected);
    assert_eq!(texts(&said.additionals), [""; 0]);
}

#[test]
fn addresses_come_along_with_a_port_as_far_as_there_is_room() {
    let asked = query("_https._tcp.web.shop.", RecordType::SRV);
    let many = addresses(200);
    let whole = ports(&asked, &[443], &many, None, 65_535);
    assert_eq!(whole.additionals.len(), MAX_ADDRESSES_ALONG);
    let less = ports(&asked, &[443], &many, None, 300);
    let count = less.additionals.len();
    assert!((1..MAX_ADDRESSES_ALONG).contains(&count), "{count}");
    // What was asked for is all there.
    assert!(!less.metadata.truncation && less.answers.len() == 1);
    // And if it is not, the client asks again.
    let cut = ports(&asked, &[1; 100], &many, None, 512);
    assert!(cut.metadata.truncation && cut.additionals.is_empty());
    assert!(cut.answers.len() > 5, "{}", cut.answers.len());
}

#[test]
fn a_question_is_read_and_answered_with_the_addresses_of_its_family() {
    for (kind, expected) in [(RecordType::A, "10.0.0.0"), (RecordType::AAAA, "fd00::")] {
        let asked = query("Web.Shop.", kind);
        let question = question(&asked);
        assert_eq!(question.name(), "web.shop");
        let said = answer(&question, 1, None, 512);
        assert_eq!(said.metadata.id, 4711);
        assert_eq!(said.queries, asked.queries, "as it was written");
        assert!(said.metadata.authoritative && said.metadata.recursion_available);
        assert!(said.metadata.recursion_desired && !said.metadata.truncation);
        assert_eq!(said.metadata.response_code, ResponseCode::NoError);
        let [record] = &*said.answers else { panic!("{said}") };
        assert_eq!((record.data.to_string(), record.ttl), (expected.to_owned(), 30));
        assert_eq!(record.name.to_ascii(), "Web.Shop.");
        assert!(said.edns.is_none());
    }
}

#[test]
fn a_name_with_a_domain_added_is_an_alias() {
    let question = question(&query("web.shop.svc.cluster.local.", RecordType::A));
    let said = answer(&question, 1, Some("web.shop"), 512);
    let text: Vec<_> = said.answers.iter().map(ToString::to_string).collect();
    assert!(text[0].contains("CNAME") && text[0].ends_with("web.shop."), "{text:?}");
    assert!(text[1].starts_with("web.shop.") && text[1].ends_with("10.0.0.0"), "{text:?}");
}

#[test]
fn a_name_without_an_address_of_the_family_exists_all_the_same() {
    let question = question(&query("web.", RecordType::AAAA));
    let said = question.answer(&[IpAddr::from([10, 0, 0, 1])], None, 512).unwrap();
    let said = Message::from_vec(&said).unwrap();
    assert_eq!(said.metadata.response_code, ResponseCode::NoError);
    assert!(said.answers.is_empty() && said.metadata.authoritative);
}

#[test]
fn an_answer_that_does_not_fit_has_what_does_and_says_so() {
    let plain = question(&query("web.shop.svc.cluster.local.", RecordType::A));
    let said = answer(&plain, 100, Some("web.shop"), plain.payload());
    assert!(said.metadata.truncation);
    assert!((20..30).contains(&said.answers.len()), "{}", said.answers.len());
    let extended = with_edns(query("web.shop.svc.cluster.local.", RecordType::A), 4096);
    let extended = question(&extended);
    assert_eq!(extended.payload(), 4096);
    let said = answer(&extended, 100, Some("web.shop"), extended.payload());
    assert!(!said.metadata.truncation);
    assert_eq!(said.answers.len(), 101);
    assert_eq!(said.edns.unwrap().max_payload(), OFFERED_PAYLOAD);
    let small = question(&with_edns(query("web.", RecordType::A), 100));
    assert_eq!(small.payload(), 512, "nobody takes less");
    let none = plain.answer(&addresses(100), Some("web.shop"), 1).unwrap();
    assert!(Message::from_vec(&none).unwrap().metadata.truncation);
}

#[test]
fn what_is_no_ordinary_question_is_for_a_name_server() {
    let other = |change: fn(&mut Message)| {
        let mut message = with_edns(query("web.", RecordType::A), 1232);
        change(&mut message);
        read(&message.to_vec().unwrap()).unwrap()
    };
    for request in [
        other(|message| message.metadata.op_code = OpCode::Update),
        other(|message| {
            message.edns.as_mut().unwrap().set_version(1);
        }),
        other(|message| {
            message.queries[0].set_query_class(DNSClass::CH);
        }),
        other(|message| {
            message.add_query(Query::query(Name::root(), RecordType::A));
        }),
        other(|message| message.queries.clear()),
        read(&[0; 12]).unwrap(),
        read(&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63]).unwrap(),
    ] {
        assert!(matches!(request, Request::Other), "{request:?}");
        assert!(request.is_conversation());
    }
    let mut said = query("web.", RecordType::A);
    said.metadata.message_type = MessageType::Response;
    assert_eq!(read(&said.to_vec().unwrap()).unwrap_err(), Malformed);
    assert_eq!(read(&[0; 11]).unwrap_err(), Malformed);
}

#[test]
fn only_addresses_are_asked_for_by_a_and_aaaa() {
    for (kind, expected) in [
        (RecordType::A, Some(Addresses::V4)),
        (RecordType::AAAA, Some(Addresses::V6)),
        (RecordType::SRV, None),
        (RecordType::ANY, None),
        (RecordType::HTTPS, None),
        (RecordType::Unknown(65_280), None),
    ] {
        assert_eq!(question(&query("web.", kind)).addresses(), expected, "{kind}");
    }
    let kind = |kind| Request::Question(Box::new(question(&query("web.", kind))));
    assert!(kind(RecordType::AXFR).is_conversation());
    assert!(!kind(RecordType::SRV).is_conversation());
    assert_eq!(kind(RecordType::SRV).kind(), "SRV");
}

#[test]
fn a_failure_repeats_the_question_and_nothing_else() {
    let asked = with_edns(query("Web.Shop.", RecordType::SRV), 1232);
    let bytes = asked.to_vec().unwrap();
    let said = Message::from_vec(&failure(&bytes).unwrap()).unwrap();
    assert_eq!(said.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((said.metadata.id, &said.queries), (4711, &asked.queries));
    assert!(said.metadata.recursion_desired && said.edns.is_none());
    assert!(is_answer(&failure(&bytes).unwrap(), &bytes));
    // Of a message that makes no sense there is nothing to repeat.
    let odd = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0];
    assert_eq!(failure(&odd).unwrap().len(), 12);
    assert_eq!(failure(&failure(&bytes).unwrap()), None, "no answer to an answer");
}

#[test]
fn an_answer_belongs_to_its_question_and_to_no_other() {
    let asked = query("Web.Shop.", RecordType::A).to_vec().unwrap();
    let said = |name, kind| {
        let mut message = query(name, kind);
        message.metadata.message_type = MessageType::Response;
        message.to_vec().unwrap()
    };
    assert!(is_answer(&said("web.shop.", RecordType::A), &asked), "whatever the case");
    assert!(!is_answer(&said("web.shot.", RecordType::A), &asked));
    assert!(!is_answer(&said("web.shop.", RecordType::AAAA), &asked));
    assert!(!is_answer(&said("web.", RecordType::A), &asked));
    assert!(!is_answer(&asked, &asked), "a question");
    let mut other = said("web.shop.", RecordType::A);
    Id(4712).put(&mut other);
    assert!(!is_answer(&other, &asked));
    let mut bare = said("web.shop.", RecordType::A)[..12].to_vec();
    bare[4..6].fill(0);
    assert!(is_answer(&bare, &asked), "of a server that cannot read the question");
    assert!(!is_answer(&bare[..11], &asked));
}

#[test]
fn a_name_that_the_mesh_knows_exists_whatever_the_name_server_says() {
    let mut denied = query("web.", RecordType::TXT);
    denied.metadata.message_type = MessageType::Response;
    denied.metadata.response_code = ResponseCode::NXDomain;
    let mut bytes = denied.to_vec().unwrap();
    known_to_exist(&mut bytes);
    denied.metadata.response_code = ResponseCode::NoError;
    assert_eq!(bytes, denied.to_vec().unwrap());
    denied.metadata.response_code = ResponseCode::Refused;
    let refused = denied.to_vec().unwrap();
    let mut bytes = refused.clone();
    known_to_exist(&mut bytes);
    assert_eq!(bytes, refused);
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..600);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let real = (changes, any::<prop::sample::Index>()).prop_map(|(changes, end)| {
        let mut bytes = with_edns(query("a.web.shop.svc.cluster.local.", RecordType::A), 1232)
            .to_vec()
            .unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len() + 1).max(12));
        bytes
    });
    prop_oneof![noise, real]
}

proptest! {
    #[test]
    fn any_message_is_read_answered_and_refused_without_harm(
        bytes in any_message(),
        other in any_message(),
    ) {
        if let Ok(request) = read(&bytes) {
            let said = failure(&bytes).unwrap();
            prop_assert!(said.len() <= bytes.len() && is_answer(&said, &bytes));
            if let Request::Question(question) = &request {
                let limit = request.payload();
                let answer = question.answer(&addresses(40), Some("web.shop"), limit).unwrap();
                prop_assert!(answer.len() <= limit && is_answer(&answer, &bytes));
                prop_assert!(question.name().len() <= 4 * 255);
            }
        }
        let mut other = other;
        let _ = is_answer(&other, &bytes);
        known_to_exist(&mut other);
        Id(1).put(&mut other);
    }
}
