//! Descriptors that do not fit into a process. A program of its own, since its limit is lowered.
#![expect(clippy::unwrap_used, reason = "what fails, fails the test")]

use std::{fs, io, os::fd::AsFd};

use fairlead_sys::descriptors::{pair, receive, send};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn open_descriptors() -> usize {
    // Without the one that the list is read through.
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

#[test]
fn descriptors_without_room_are_missing_and_none_is_lost_track_of() {
    let (left, right) = pair().unwrap();
    let file = io::stdin();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let next = fs::File::open("/dev/null").unwrap();
    let highest = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap();
    drop(next);
    let before = open_descriptors();
    for room in 0..3_usize {
        send(&left, b"take", &[file.as_fd(); 3]).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, highest + room as u64, hard).unwrap();
        let datagram = receive(&right, &mut [0; 4]);
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let datagram = datagram.unwrap();
        assert_eq!((datagram.length, datagram.descriptors.len()), (4, room));
        drop(datagram);
        assert_eq!(open_descriptors(), before, "with room for {room}");
    }
}
