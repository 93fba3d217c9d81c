//! What a process has in its memory, from `/proc/PID/maps`.

use std::ops::Range;

/// A file, as the kernel tells files apart in such a list: device and inode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: String,
    inode: u64,
}

/// Executable memory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it is.
    pub addresses: Range<u64>,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file; none if there is none behind it.
    pub file: Option<FileId>,
    /// Name of the file, as the process sees it, or what the kernel calls it.
    pub name: String,
}

// === impl FileId ===

impl FileId {
    /// Returns the inode.
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

// === impl Mapping ===

impl Mapping {
    /// Returns the place in the file of an address.
    pub fn place(&self, address: u64) -> Option<u64> {
        let within = self.addresses.contains(&address);
        within.then(|| (address - self.addresses.start).checked_add(self.offset)).flatten()
    }
}

/// Reads such a list; returns what is executable, by address. Lines of another form are left out.
pub fn parse(maps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<_> = maps.lines().filter_map(mapping).collect();
    mappings.sort_by_key(|mapping| mapping.addresses.start);
    mappings
}

/// Returns the mapping that an address is in.
pub fn find(mappings: &[Mapping], address: u64) -> Option<&Mapping> {
    let after = mappings.partition_point(|mapping| mapping.addresses.start <= address);
    let mapping = mappings.get(after.checked_sub(1)?)?;
    mapping.addresses.contains(&address).then_some(mapping)
}

/// Fields: addresses, permissions, offset, device, inode, and a name after blanks (proc(5)).
fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.split_once(' ')?;
        rest = after;
        Some(field)
    };
    let (start, end) = field()?.split_once('-')?;
    let permissions = field()?;
    let offset = hexadecimal(field()?)?;
    let device = field()?.to_owned();
    let (inode, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let inode = inode.parse().ok()?;
    let addresses = hexadecimal(start)?..hexadecimal(end)?;
    let file = (inode != 0).then_some(FileId { device, inode });
    let name = name.trim_start().to_owned();
    permissions.contains('x').then_some(Mapping { addresses, offset, file, name })
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0100000 r--p 00000000 fe:01 1234   /usr/bin/fairlead-node
7f0000200000-7f0000300000 r-xp 00028000 fe:01 99     /usr/lib/libc.so.6 (deleted)
55d0c0100000-55d0c0400000 r-xp 00100000 fe:01 1234                       /usr/bin/fairlead-node
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]
7ffd00000000-7ffd00001000 --xp 00000000 00:00 0
7ffd00002000-7ffd00003000 rw-p 00000000 00:00 0      [stack]
nonsense
55d0c0100000 r-xp
";

    #[test]
    fn what_is_executable_is_found_by_its_address() {
        let mappings = parse(MAPS);
        for (address, expected) in [
            (0x55d0_c000_0000, None),
            (0x55d0_c00f_ffff, None),
            (0x55d0_c010_0000, Some(("/usr/bin/fairlead-node", 0x10_0000, true))),
            (0x55d0_c03f_ffff, Some(("/usr/bin/fairlead-node", 0x3f_ffff, true))),
            (0x55d0_c040_0000, None),
            (0x7f00_0020_0010, Some(("/usr/lib/libc.so.6 (deleted)", 0x2_8010, true))),
            (0x7ffc_0000_0001, Some(("[vdso]", 1, false))),
            (0x7ffd_0000_0000, Some(("", 0, false))),
            (0, None),
            (u64::MAX, None),
        ] {
            let found = find(&mappings, address).map(|mapping| {
                (mapping.name.as_str(), mapping.place(address).unwrap(), mapping.file.is_some())
            });
            assert_eq!(found, expected, "{address:#x}");
        }
        assert_eq!(mappings.len(), 4);
    }

    #[test]
    fn files_are_told_apart_by_device_and_inode() {
        let file = |maps: &str| parse(maps).remove(0).file.unwrap();
        let own = file("1000-2000 r-xp 00000000 fe:01 7 /a");
        assert_eq!(own, file("3000-4000 r-xp 00001000 fe:01 7 /elsewhere/a"));
        assert_ne!(own, file("1000-2000 r-xp 00000000 fe:02 7 /a"));
        assert_ne!(own, file("1000-2000 r-xp 00000000 fe:01 8 /a"));
    }
}
