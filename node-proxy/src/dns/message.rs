//! Questions that can be answered from what is known of the mesh, and the answers.

use std::net::IpAddr;

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SRV},
    },
};

use super::raw;

/// Time that an answer may be kept, in seconds (as ztunnel).
const TTL: u32 = 30;

/// Longest answer over UDP to a client that does not say what it takes (RFC 1035, section 2.3.4).
const PLAIN_PAYLOAD: u16 = 512;

/// Longest datagram that is offered to clients: fits the packets of every network (DNS flag day
/// 2020).
pub(super) const OFFERED_PAYLOAD: u16 = 1_232;

/// Addresses of a port's host that are sent along with the port: clients ask for them themselves if
/// they want more.
const MAX_ADDRESSES_ALONG: usize = 16;

/// Priority and weight of a port: there is no other to choose from (RFC 2782).
const ONLY_ONE: (u16, u16) = (0, 0);

/// A message that asks for something.
#[derive(Debug)]
pub enum Request {
    /// One question of the ordinary kind.
    Question(Box<Question>),
    /// Something else, which is for a name server to understand.
    Other,
}

/// An ordinary question.
#[derive(Debug)]
pub struct Question {
    message: Message,
}

/// Which addresses a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The message is no DNS message, or not one that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS query")]
pub struct Malformed;

/// Reads a message. What has the header of a query and makes no sense beyond is
/// [`Request::Other`].
pub fn read(bytes: &[u8]) -> Result<Request, Malformed> {
    if !raw::is_question(bytes) {
        return Err(Malformed);
    }
    let Ok(message) = Message::from_vec(bytes) else { return Ok(Request::Other) };
    let version = message.edns.as_ref().map_or(0, Edns::version);
    let ordinary = message.metadata.op_code == OpCode::Query
        && message.metadata.message_type == MessageType::Query
        && version == 0
        && matches!(&*message.queries, [one] if one.query_class() == DNSClass::IN);
    Ok(if ordinary { Request::Question(Box::new(Question { message })) } else { Request::Other })
}

// === impl Request ===

impl Request {
    /// Returns the type that is asked for, by name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Question(question) => question.kind().into(),
            Self::Other => "OTHER",
        }
    }

    /// Returns how long an answer may be over UDP, in bytes.
    pub fn payload(&self) -> usize {
        match self {
            Self::Question(question) => question.payload(),
            Self::Other => usize::from(u16::MAX),
        }
    }

    /// Returns whether an answer may be given again to the next who asks the same.
    pub fn may_be_kept(&self) -> bool {
        match self {
            Self::Question(_) => true,
            Self::Other => false,
        }
    }

    /// Returns whether the answer may be more than one message, or the connection be used for more
    /// than questions and answers.
    pub fn is_conversation(&self) -> bool {
        match self {
            Self::Question(question) => {
                matches!(question.kind(), RecordType::AXFR | RecordType::IXFR)
            }
            Self::Other => true,
        }
    }
}

// === impl Question ===

impl Question {
    /// Returns the name that is asked for: in lower case, without the final dot.
    pub fn name(&self) -> String {
        let mut name = self.asked().to_lowercase().to_ascii();
        if name.ends_with('.') {
            name.pop();
        }
        name
    }

    /// Returns which addresses are asked for, if any.
    pub fn addresses(&self) -> Option<Addresses> {
        [(RecordType::A, Addresses::V4), (RecordType::AAAA, Addresses::V6)]
            .into_iter()
            .find_map(|(kind, addresses)| (kind == self.kind()).then_some(addresses))
    }

    /// Returns an answer with these addresses, of which those of the other family are left out;
    /// `alias_of` is the name that they belong to, if it is another one. Longer than `limit` it is
    /// cut, and says so.
    pub fn answer(
        &self,
        addresses: &[IpAddr],
        alias_of: Option<&str>,
        limit: usize,
    ) -> Result<Vec<u8>, ProtoError> {
        let (answer, owner) = self.begin(alias_of)?;
        let is_v4 = self.addresses().map(|family| family == Addresses::V4);
        let asked = addresses.iter().filter(|address| Some(address.is_ipv4()) == is_v4);
        let records: Vec<_> = asked.map(|address| address_of(&owner, *address)).collect();
        fit(answer, &records, &[], limit)
    }

    /// Returns whether ports are asked for, by their names.
    pub fn is_for_ports(&self) -> bool {
        self.kind() == RecordType::SRV
    }

    /// Returns an answer with these ports of `target`, and with its addresses as far as there is room;
    /// `alias_of` is the name that the ports belong to, if it is another one. Longer than `limit` it
    /// is cut, and says so.
    pub fn answer_ports(
        &self,
        ports: &[u16],
        target: &str,
        addresses: &[IpAddr],
        alias_of: Option<&str>,
        limit: usize,
    ) -> Result<Vec<u8>, ProtoError> {
        let (answer, owner) = self.begin(alias_of)?;
        let target = whole(target)?;
        let (priority, weight) = ONLY_ONE;
        let port = |port: &u16| {
            let data = RData::SRV(SRV::new(priority, weight, *port, target.clone()));
            Record::from_rdata(owner.clone(), TTL, data)
        };
        let records: Vec<_> = ports.iter().map(port).collect();
        let along = addresses.iter().take(MAX_ADDRESSES_ALONG);
        let along: Vec<_> = along.map(|address| address_of(&target, *address)).collect();
        fit(answer, &records, &along, limit)
    }

    /// Returns how long an answer may be over UDP, in bytes.
    pub fn payload(&self) -> usize {
        let asked = self.message.edns.as_ref().map_or(PLAIN_PAYLOAD, Edns::max_payload);
        usize::from(asked.max(PLAIN_PAYLOAD))
    }

    /// Begins an answer; returns it and the name that its records belong to.
    fn begin(&self, alias_of: Option<&str>) -> Result<(Message, Name), ProtoError> {
        let (mut answer, owner) = (self.empty_answer(), self.asked().clone());
        let Some(name) = alias_of else { return Ok((answer, owner)) };
        let name = whole(name)?;
        answer.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(name.clone()))));
        Ok((answer, name))
    }

    fn empty_answer(&self) -> Message {
        let asked = &self.message.metadata;
        let mut answer = Message::response(asked.id, asked.op_code);
        answer.metadata.authoritative = true;
        answer.metadata.recursion_available = true;
        answer.metadata.recursion_desired = asked.recursion_desired;
        answer.metadata.checking_disabled = asked.checking_disabled;
        answer.add_queries(self.message.queries.iter().cloned());
        if let Some(edns) = &self.message.edns {
            let mut own = Edns::new();
            own.set_max_payload(OFFERED_PAYLOAD);
            own.set_dnssec_ok(edns.flags().dnssec_ok);
            answer.set_edns(own);
        }
        answer
    }

    fn asked(&self) -> &Name {
        static ROOT: std::sync::LazyLock<Name> = std::sync::LazyLock::new(Name::root);
        self.message.queries.first().map_or(&ROOT, |query| query.name())
    }

    fn kind(&self) -> RecordType {
        self.message.queries.first().map_or(RecordType::NULL, Query::query_type)
    }
}

/// Returns a name that nothing is added to.
fn whole(name: &str) -> Result<Name, ProtoError> {
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    Ok(name)
}

fn address_of(owner: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(owner.clone(), TTL, data)
}

/// Adds as many of the records as fit, and of those that may come along. A client that does not ask
/// again over TCP has those.
fn fit(
    mut answer: Message,
    records: &[Record],
    along: &[Record],
    limit: usize,
) -> Result<Vec<u8>, ProtoError> {
    let alias = answer.answers.clone();
    let (mut count, mut extra) = (records.len(), along.len());
    loop {
        answer.answers.clone_from(&alias);
        answer.add_answers(records.iter().take(count).cloned());
        answer.additionals = along.iter().take(extra).cloned().collect();
        answer.metadata.truncation = count < records.len();
        let bytes = answer.to_vec()?;
        let Some(excess) = bytes.len().checked_sub(limit).filter(|excess| *excess > 0) else {
            return Ok(bytes);
        };
        let each = (bytes.len() - raw::HEADER) / (count + extra + 1);
        // What may come along goes first.
        let least = if extra > 0 { &mut extra } else { &mut count };
        if *least == 0 {
            return Ok(bytes);
        }
        // Records are of about one length, as their names are compressed.
        *least = least.saturating_sub(excess.div_ceil(each.max(1)).max(1));
    }
}

#[cfg(test)]
mod tests;
