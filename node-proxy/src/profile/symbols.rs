//! Functions of an executable file, from its symbol tables.

use std::{collections::HashMap, fs::File};

use object::{
    Endianness, Object as _, ObjectSegment as _, ObjectSymbol as _, ObjectSymbolTable as _,
    ReadCache, SymbolIndex, SymbolKind,
    read::elf::{ElfFile64, ElfSymbolTable64},
};
use rustc_demangle::demangle;

/// Longest name of a function, in bytes. Those of generic code run to thousands.
const MAX_NAME_BYTES: usize = 512;

/// Why an executable file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("it is no ELF file of 64 bits that can be read: {0}")]
pub struct Unreadable(#[from] object::Error);

/// What is read of a file, and kept until the questions about it are answered.
type Data = ReadCache<File>;

type Elf<'a> = ElfFile64<'a, Endianness, &'a Data>;

/// Where a function is, by the addresses that the file gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u64,
    bytes: u64,
    symbol: SymbolIndex,
}

/// Returns the names of the functions at these places of a file. Those that are unknown are left
/// out.
pub fn functions(file: File, places: &[u64]) -> Result<HashMap<u64, String>, Unreadable> {
    let data = ReadCache::new(file);
    let elf = Elf::parse(&data)?;
    // A stripped file still says what it exports.
    let Some(table) = elf.symbol_table().or_else(|| elf.dynamic_symbol_table()) else {
        return Ok(HashMap::new());
    };
    let extents = extents(&table);
    let name = |place: u64| {
        let extent = covering(&extents, address(&elf, place)?)?;
        let symbol = table.symbol_by_index(extent.symbol).ok()?;
        symbol.name().ok().map(readable)
    };
    Ok(places.iter().filter_map(|place| Some((*place, name(*place)?))).collect())
}

/// Returns where in a file these functions are, of those that it has for other files.
pub fn places<'n>(file: File, names: &[&'n str]) -> Result<HashMap<&'n str, u64>, Unreadable> {
    let data = ReadCache::new(file);
    let elf = Elf::parse(&data)?;
    let mut found = HashMap::new();
    for symbol in elf.dynamic_symbols() {
        if symbol.kind() == SymbolKind::Text
            && symbol.is_definition()
            && let Ok(name) = symbol.name()
            && let Some(name) = names.iter().find(|wanted| **wanted == name)
            && let Some(place) = place(&elf, symbol.address())
        {
            found.entry(*name).or_insert(place);
        }
    }
    Ok(found)
}

fn extents<'a>(table: &ElfSymbolTable64<'a, '_, Endianness, &'a Data>) -> Vec<Extent> {
    let functions = table.symbols().filter(|s| s.kind() == SymbolKind::Text && s.is_definition());
    let mut extents: Vec<_> = functions
        .map(|s| Extent { start: s.address(), bytes: s.size(), symbol: s.index() })
        .collect();
    extents.sort_by_key(|extent| (extent.start, extent.bytes));
    extents
}

/// Returns the function that an address is in. One without a size reaches to the next.
fn covering(extents: &[Extent], address: u64) -> Option<&Extent> {
    let after = extents.partition_point(|extent| extent.start <= address);
    let extent = extents.get(after.checked_sub(1)?)?;
    (extent.bytes == 0 || address - extent.start < extent.bytes).then_some(extent)
}

/// Returns the address that the file gives to a place of its own.
fn address(elf: &Elf<'_>, place: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let (offset, bytes) = segment.file_range();
        let within = place.checked_sub(offset).filter(|within| *within < bytes)?;
        segment.address().checked_add(within)
    })
}

/// Returns the place of the file that has an address.
fn place(elf: &Elf<'_>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let (offset, bytes) = segment.file_range();
        let within = address.checked_sub(segment.address()).filter(|within| *within < bytes)?;
        offset.checked_add(within)
    })
}

/// Returns the name as it is in the source, within bounds.
fn readable(name: &str) -> String {
    let mut name = format!("{:#}", demangle(name));
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::mappings;

    #[test]
    fn an_address_belongs_to_the_function_that_reaches_so_far() {
        let extent = |start, bytes, symbol| Extent { start, bytes, symbol: SymbolIndex(symbol) };
        let extents = [extent(10, 5, 1), extent(20, 0, 2), extent(30, 10, 3)];
        for (address, expected) in [
            (0, None),
            (9, None),
            (10, Some(1)),
            (14, Some(1)),
            (15, None),
            (20, Some(2)),
            (29, Some(2)),
            (30, Some(3)),
            (39, Some(3)),
            (40, None),
        ] {
            let found = covering(&extents, address).map(|extent| extent.symbol.0);
            assert_eq!(found, expected, "{address}");
        }
        assert_eq!(covering(&[], 1), None);
    }

    #[test]
    fn names_are_as_in_the_source_and_bounded() {
        assert_eq!(
            readable("_ZN4core3fmt5Write9write_str17h0123456789abcdefE"),
            "core::fmt::Write::write_str"
        );
        assert_eq!(readable("malloc"), "malloc");
        let long = "\u{e9}".repeat(MAX_NAME_BYTES);
        assert_eq!(readable(&long).len(), MAX_NAME_BYTES);
        assert_eq!(readable(&format!("x{long}")).len(), MAX_NAME_BYTES - 1);
    }

    /// Is looked for in this very process.
    #[inline(never)]
    fn landmark() -> u64 {
        std::hint::black_box(landmark as fn() -> u64 as usize as u64)
    }

    #[test]
    fn a_function_of_this_process_is_found_by_its_address_and_the_allocator_by_its_name() {
        let maps = mappings::parse(&std::fs::read_to_string("/proc/self/maps").unwrap());
        let mapping = mappings::find(&maps, landmark()).unwrap();
        let place = mapping.place(landmark()).unwrap();
        let own = || File::open("/proc/self/exe").unwrap();
        let found = functions(own(), &[place, u64::MAX]).unwrap();
        assert!(found[&place].ends_with("symbols::tests::landmark"), "{found:?}");
        assert_eq!(found.len(), 1);
        let libc = maps.iter().find(|mapping| mapping.name.contains("libc.so")).unwrap();
        let names = ["malloc", "free", "no_such_function"];
        let found = places(File::open(&libc.name).unwrap(), &names).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        let again = functions(File::open(&libc.name).unwrap(), &[found["free"]]).unwrap();
        assert!(again[&found["free"]].contains("free"), "{again:?}");
        // It asks others for them, and does not have them.
        assert!(!places(own(), &names).unwrap().contains_key("malloc"));
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let file = File::open("/proc/self/maps").unwrap();
        assert!(functions(file, &[0]).is_err());
    }
}
