//! The four services of Bookinfo, the application that Istio's documents show everything with.
//!
//! `fairlead-bookinfo reviews v2` is what a pod of `reviews-v2` runs: the same port, paths, answers,
//! headers and patience as the images of the documents have, which take too long to start for tests.
//! Each request leaves a line of JSON on standard output.

mod client;
mod details;
mod productpage;
mod propagation;
mod ratings;
mod reply;
mod reviews;
mod server;

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Result;
use clap::Parser;

use self::{client::Hosts, server::App};

/// Plays a service of Bookinfo.
#[derive(Debug, Parser)]
#[command(name = "fairlead-bookinfo", max_term_width = 100)]
struct Cli {
    /// Which service.
    #[arg(value_enum)]
    service: Service,
    /// Which version of it: of reviews v1 shows no stars, v2 black ones and v3 red ones; ratings
    /// v-unavailable answers 503 and v-delayed takes 2 s. All others of a service are alike.
    version: String,
    /// Port to listen on.
    #[arg(long, default_value = "9080")]
    port: u16,
    /// Where the other services are.
    #[command(flatten)]
    hosts: Hosts,
}

/// A service of Bookinfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Service {
    /// The page, which asks details and reviews.
    Productpage,
    /// Facts about a book.
    Details,
    /// What readers wrote; from v2 on with the stars that ratings knows.
    Reviews,
    /// Numbers of stars.
    Ratings,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Cli { service, version, port, hosts } = Cli::parse();
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    server::serve(address, App { service, version, hosts }).await
}

// === impl Service ===

impl Service {
    /// Returns the name that the service has in a cluster.
    fn name(self) -> &'static str {
        match self {
            Self::Productpage => "productpage",
            Self::Details => "details",
            Self::Reviews => "reviews",
            Self::Ratings => "ratings",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
