//! The kernel's table of TCP sockets, as `/proc/net/tcp` and `/proc/net/tcp6` show it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result, bail, ensure};

/// A TCP socket of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Its own address.
    pub local: SocketAddr,
    /// Its peer's address; all zeros for a listener.
    pub remote: SocketAddr,
    /// Where its connection stands.
    pub state: TcpState,
}

/// State of a TCP socket (RFC 9293 section 3.3.2; `NewSynRecv` is Linux's own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum TcpState {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynRecv,
}

/// Reads the table of the calling thread's namespace.
pub(crate) fn read() -> Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
        for line in text.lines().skip(1) {
            sockets.push(parse_line(line).with_context(|| format!("{table}: {line}"))?);
        }
    }
    Ok(sockets)
}

// === impl TcpState ===

impl TcpState {
    fn from_number(number: u8) -> Result<Self> {
        Ok(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynRecv,
            _ => bail!("unknown TCP state {number}"),
        })
    }
}

fn parse_line(line: &str) -> Result<TcpSocket> {
    let mut fields = line.split_whitespace().skip(1);
    let mut next = || fields.next().context("too few fields");
    Ok(TcpSocket {
        local: parse_address(next()?)?,
        remote: parse_address(next()?)?,
        state: TcpState::from_number(u8::from_str_radix(next()?, 16)?)?,
    })
}

/// Parses an address whose 32-bit words are printed as numbers in the machine's byte order.
fn parse_address(text: &str) -> Result<SocketAddr> {
    let (address, port) = text.split_once(':').context("no port")?;
    ensure!(address.len().is_multiple_of(8), "not of whole words");
    let mut bytes = Vec::with_capacity(16);
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(str::from_utf8(word)?, 16)?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.as_slice())?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice())?)),
        other => bail!("an address of {other} bytes"),
    };
    Ok(SocketAddr::new(ip, u16::from_str_radix(port, 16)?))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_each_table_is_parsed() {
        let v4 =
            "   0: 0100007F:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1";
        let v6 = "   1: 000000FD000000000000000001000000:0050 \
                  00000000000000000000000000000000:0000 01 0:0";
        let listener = parse_line(v4).unwrap();
        assert_eq!(listener.local, "127.0.0.1:15000".parse().unwrap());
        assert_eq!(listener.state, TcpState::Listen);
        let established = parse_line(v6).unwrap();
        assert_eq!(established.local, "[fd00::1]:80".parse().unwrap());
        assert_eq!(established.state, TcpState::Established);
    }

    #[test]
    fn malformed_lines_are_errors() {
        for bad in ["", "0: 0100007F", "0: 0100007F:1 00:1 01", "0: zz:1 zz:1 01"] {
            assert!(parse_line(bad).is_err(), "{bad}");
        }
    }
}
