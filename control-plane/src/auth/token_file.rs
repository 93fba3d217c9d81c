//! Static tokens in a file, for a mesh without Kubernetes.
//!
//! One token a line, with the node that uses it and the account that it stands for:
//!
//! ```text
//! # TOKEN                            NODE  NAMESPACE/SERVICE-ACCOUNT
//! 4f1d0c5d9f0b1a6e77c2b6ac9ce51a3e   n1    istio-system/ztunnel
//! ```
//!
//! Blank lines and lines that begin with `#` say nothing. The file is watched; a broken version is
//! reported and the last good one stays.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use mesh_api::workload::NodeName;
use tracing::{error, info, warn};

use super::{
    AuthError, Authenticator, Caller, InvalidAccount,
    digest::{Digest, digest_of},
};
use crate::watch::{WatchError, Watched};

/// Shortest token: 64 bits, written in hexadecimal digits, cannot be guessed over a network.
const MIN_TOKEN_CHARS: usize = 16;

/// Largest file, in bytes: 5,000 nodes with a line of 200 bytes each.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Permission bits of users other than the owner and the group.
const OTHERS: u32 = 0o007;

type Tokens = HashMap<Digest, Caller>;

/// The tokens of a file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    tokens: ArcSwap<Tokens>,
}

/// Why a token file is not in use.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A line has not the form that it needs.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The file cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

// === impl TokenFile ===

impl TokenFile {
    /// Reads a file. A file that is broken at the start is an error.
    pub fn open(path: &Path) -> Result<Arc<Self>, TokenFileError> {
        let tokens = ArcSwap::from_pointee(read(path)?);
        Ok(Arc::new(Self { path: path.to_owned(), tokens }))
    }

    /// Takes up every further version of the file. Returns only if it cannot be watched.
    pub async fn follow(&self) -> Result<(), TokenFileError> {
        let mut changes = Watched::file(&self.path)?;
        // What was written between reading and watching.
        self.reload();
        while changes.changed().await {
            self.reload();
        }
        Ok(())
    }

    fn reload(&self) {
        match read(&self.path) {
            Ok(tokens) if tokens == **self.tokens.load() => {}
            Ok(tokens) => {
                info!(tokens = tokens.len(), "token file applied");
                self.tokens.store(Arc::new(tokens));
            }
            Err(error) => error!(%error, "token file not applied; the last good one stays"),
        }
    }
}

impl Authenticator for TokenFile {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, AuthError>> {
        let caller = self.tokens.load().get(&digest_of(token)).cloned();
        Box::pin(std::future::ready(caller.ok_or(AuthError::Invalid)))
    }
}

fn read(path: &Path) -> Result<Tokens, TokenFileError> {
    let failed = |source| TokenFileError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & OTHERS != 0 {
        warn!(file = %path.display(), "every user of this machine may use the tokens; run chmod 600");
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes"))));
    }
    parse(&text).map_err(|(line, problem)| TokenFileError::Line {
        path: path.to_owned(),
        line,
        problem,
    })
}

fn parse(text: &str) -> Result<Tokens, (usize, String)> {
    let mut tokens = Tokens::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (token, caller) = parse_line(line).map_err(|problem| (index + 1, problem))?;
        if tokens.insert(digest_of(token), caller).is_some() {
            return Err((index + 1, "this token is in the file twice".to_owned()));
        }
    }
    Ok(tokens)
}

fn parse_line(line: &str) -> Result<(&str, Caller), String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [token, node, account] = words[..] else {
        return Err("write TOKEN NODE NAMESPACE/SERVICE-ACCOUNT".to_owned());
    };
    if token.len() < MIN_TOKEN_CHARS {
        return Err(format!(
            "a token has at least {MIN_TOKEN_CHARS} characters; make one with: openssl rand -hex 32"
        ));
    }
    let account = account.parse().map_err(|error: InvalidAccount| error.to_string())?;
    let caller = Caller { account, pod: None, node: Some(NodeName(node.into())) };
    Ok((token, caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn a_line_says_who_uses_a_token() {
        let text = format!("# comment\n\n{TOKEN}  n1\tistio-system/ztunnel\n");
        let tokens = parse(&text).unwrap();
        let caller = &tokens[&digest_of(TOKEN)];
        assert_eq!(caller.account.to_string(), "istio-system/ztunnel");
        assert_eq!(caller.node, Some(NodeName("n1".into())));
        assert_eq!(caller.pod, None);
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, line) in [
            ("short n1 a/b", 1),
            ("\n0123456789abcdef n1", 2),
            ("0123456789abcdef n1 a/b c", 1),
            ("0123456789abcdef n1 ab", 1),
            ("0123456789abcdef n1 a/b/c", 1),
            ("0123456789abcdef n1 /b", 1),
            ("0123456789abcdef n1 a/b\n0123456789abcdef n2 a/b", 2),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_up_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let write = |text: &str| {
            let draft = dir.path().join("draft");
            fs::write(&draft, text).unwrap();
            fs::rename(draft, &path).unwrap();
        };
        write(&format!("{TOKEN} n1 istio-system/ztunnel"));
        let file = TokenFile::open(&path).unwrap();
        assert_eq!(file.authenticate("another token").await, Err(AuthError::Invalid));
        let node = async || file.authenticate(TOKEN).await.unwrap().node.unwrap().0;
        assert_eq!(&*node().await, "n1");
        write("broken");
        file.reload();
        assert_eq!(&*node().await, "n1");
        write(&format!("{TOKEN} n2 istio-system/ztunnel"));
        file.reload();
        assert_eq!(&*node().await, "n2");
    }
}
