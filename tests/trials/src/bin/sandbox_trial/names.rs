//! Host names, looked up by the C library in a sandbox that shows it its files.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, ToSocketAddrs as _, UdpSocket},
    path::{Path, PathBuf},
    process, thread,
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use fairlead_node::sandbox::{RESOLVER_FILES, Sandbox};

const DNS_PORT: u16 = 53;
const TYPE_A: [u8; 2] = [0, 1];
const HEADER: usize = 12;

/// What the name server says, whatever it is asked.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 7);

pub(crate) fn are_looked_up(visible: &Path) {
    // An address of its own, so that trials do not get in each other's way.
    let [_, _, high, low] = process::id().to_be_bytes();
    let server = UdpSocket::bind((Ipv4Addr::new(127, high, low, 53), DNS_PORT)).unwrap();
    let nameserver = server.local_addr().unwrap().ip();
    replace_resolver_configuration(visible, nameserver);
    let files = RESOLVER_FILES.map(PathBuf::from).to_vec();
    Sandbox { files, ..super::sandbox(visible) }.enter().unwrap();
    thread::spawn(move || answer_all(&server));

    let found: Vec<_> = ("istiod.test", 15012).to_socket_addrs().unwrap().collect();
    assert_eq!(found, [(ADDRESS, 15012).into()]);
    let found: Vec<_> = ("localhost", 1).to_socket_addrs().unwrap().map(|a| a.ip()).collect();
    assert!(found.contains(&Ipv4Addr::LOCALHOST.into()), "from the hosts file: {found:?}");
    for hidden in ["/etc/passwd", "/etc/shadow", "/etc/ssl", "/usr", "/proc"] {
        assert!(!Path::new(hidden).exists(), "{hidden}");
    }
    let mut options = fs::OpenOptions::new();
    super::refused(options.write(true).open("/etc/resolv.conf"), libc::EPERM);
}

/// Has this process, and no other, ask `nameserver`.
fn replace_resolver_configuration(visible: &Path, nameserver: IpAddr) {
    const NONE: Option<&str> = None;
    let configuration = visible.join("resolv.conf");
    fs::write(&configuration, format!("nameserver {nameserver}\n")).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
    mount(Some(&configuration), "/etc/resolv.conf", NONE, MsFlags::MS_BIND, NONE).unwrap();
}

fn answer_all(server: &UdpSocket) {
    let mut query = [0; 512];
    loop {
        let (_, client) = server.recv_from(&mut query).unwrap();
        server.send_to(&answer(&query), client).unwrap();
    }
}

/// Returns the answer to a query: one address if it asks for IPv4, and else none.
fn answer(query: &[u8]) -> Vec<u8> {
    let name = query[HEADER..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[HEADER..HEADER + name + 4];
    let is_a = question[name..name + 2] == TYPE_A;
    let mut answer = query[..2].to_vec();
    // A response, with recursion; one question, and so many answers.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question);
    if is_a {
        // The name of the question, an IPv4 address, good for a minute.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ADDRESS.octets());
    }
    answer
}
