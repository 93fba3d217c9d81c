//! The file that names the name servers of a machine or a container: resolv.conf(5).

use std::net::IpAddr;

/// Name servers that are asked; the C library's resolver takes as many.
const MAX_SERVERS: usize = 3;

/// Returns the name servers of such a file that others than this host can reach.
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ("nameserver", address) = (words.next()?, words.next()?) else { return None };
        address.parse().ok().filter(|address: &IpAddr| !address.is_loopback())
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_in_their_order_and_what_else_there_is_is_not() {
        for (text, expected) in [
            ("", &[][..]),
            ("search a.example\nnameserver 10.0.0.1\n", &["10.0.0.1"]),
            ("nameserver 127.0.0.53\nnameserver ::1\n\tnameserver\tfd00::1  # ours", &["fd00::1"]),
            ("#nameserver 10.0.0.1\n;nameserver 10.0.0.2\nnameserver\nnameserver x", &[]),
            (&"nameserver 10.0.0.1\n".repeat(9), &["10.0.0.1"; 3]),
        ] {
            let found: Vec<_> = name_servers(text).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
