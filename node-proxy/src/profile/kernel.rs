//! Functions of the kernel, from `/proc/kallsyms`.

use std::collections::HashMap;

/// Addresses of the kernel have this bit; those of programs do not.
const KERNEL_HALF: u64 = 1 << 63;

/// Returns whether an address is the kernel's.
pub fn is_kernels(address: u64) -> bool {
    address & KERNEL_HALF != 0
}

/// Returns the names of the functions at these addresses, by the text of the list, which is in no
/// order. To who may not see the kernel's addresses it shows zeros, and then nothing is found.
pub fn functions(list: &str, addresses: &[u64]) -> HashMap<u64, String> {
    let mut functions: Vec<_> = list.lines().filter_map(function).collect();
    functions.sort_unstable();
    let name = |address: u64| {
        let after = functions.partition_point(|(start, _)| *start <= address);
        functions.get(after.checked_sub(1)?).map(|(_, name)| (*name).to_owned())
    };
    addresses.iter().filter_map(|address| Some((*address, name(*address)?))).collect()
}

/// Reads a line: address, kind, name, and the module of some.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let start = u64::from_str_radix(fields.next()?, 16).ok()?;
    let is_code = matches!(fields.next()?, "t" | "T" | "w" | "W");
    (is_code && is_kernels(start)).then_some((start, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
ffffffff81000200 T tcp_sendmsg
ffffffff81000100 t tcp_push\t[tcp]
ffffffff81000280 D not_code
0000000000000000 T hidden
ffffffff81000300 W do_idle
nonsense
ffffffff81000300
";

    #[test]
    fn each_address_gets_the_nearest_function_that_begins_before() {
        let names = |addresses: &[u64]| functions(LIST, addresses);
        for (address, expected) in [
            (0xffff_ffff_8100_00ff, None),
            (0xffff_ffff_8100_0100, Some("tcp_push")),
            (0xffff_ffff_8100_01ff, Some("tcp_push")),
            (0xffff_ffff_8100_0200, Some("tcp_sendmsg")),
            (0xffff_ffff_8100_0290, Some("tcp_sendmsg")),
            (0xffff_ffff_8100_0300, Some("do_idle")),
            (u64::MAX, Some("do_idle")),
            (0x5555_0000_0000, None),
        ] {
            assert_eq!(names(&[address]).get(&address).map(String::as_str), expected);
        }
        let all = names(&[u64::MAX, 0xffff_ffff_8100_0100, u64::MAX, 0xffff_ffff_8100_0250]);
        assert_eq!(all.len(), 3);
        assert_eq!(all[&0xffff_ffff_8100_0250], "tcp_sendmsg");
        assert_eq!(all[&0xffff_ffff_8100_0100], "tcp_push");
    }
}
