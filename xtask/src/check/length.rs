//! Finds source files that have grown too long to be read at once.
//!
//! The length of functions is clippy's business (`too-many-lines-threshold` in clippy.toml).

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file, without its tests, beyond which it surely holds more than one concept.
const MAX_LINES: usize = 500;

/// One sentence for each source file below `root` that is too long.
pub(super) fn too_long(root: &Path) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    for path in sources(root)? {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = lines_without_tests(&text);
        if lines > MAX_LINES {
            let name = path.strip_prefix(root).unwrap_or(&path).display();
            sentences.push(format!("{name} has {lines} lines without its tests, over {MAX_LINES}"));
        }
    }
    Ok(sentences)
}

/// The product's source files of every crate: those in `CRATE/src` that hold more than tests.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let crate_folder = entry?.path();
        if crate_folder.join("Cargo.toml").is_file() {
            collect(&crate_folder.join("src"), &mut found)?;
        }
    }
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if holds_tests(&path) {
            continue;
        }
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn holds_tests(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests")
}

/// The lines before a file's test module, which by convention comes last.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |pair: &[&str]| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    };
    lines.windows(2).position(opens_tests).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_module_at_the_end_does_not_count() {
        for (text, expected) in [
            ("", 0),
            ("fn a() {}\n", 1),
            ("fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n", 1),
            ("#[cfg(test)]\nmod tests;\nfn a() {}\n", 3),
            ("#[cfg(test)]\nfn helper() {}\nfn a() {}\n", 3),
        ] {
            assert_eq!(lines_without_tests(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_long_file_is_named_with_its_length() -> Result<()> {
        let root = tempfile::tempdir()?;
        let source = root.path().join("wire/src");
        fs::create_dir_all(source.join("frame"))?;
        fs::write(root.path().join("wire/Cargo.toml"), "")?;
        fs::write(source.join("lib.rs"), "//\n".repeat(MAX_LINES))?;
        fs::write(source.join("frame.rs"), "//\n".repeat(MAX_LINES + 1))?;
        for test in ["frame/tests.rs", "frame_tests.rs"] {
            fs::write(source.join(test), "//\n".repeat(MAX_LINES + 1))?;
        }
        assert_eq!(
            too_long(root.path())?,
            ["wire/src/frame.rs has 501 lines without its tests, over 500"]
        );
        Ok(())
    }
}
