//! What a visitor sees.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result};

/// Ends each page that curl writes: with its status and the time that it took.
pub(super) const CURL_FORMAT: &str = "\n--page %{http_code} %{time_total}\n";

const PAGE_END: &str = "\n--page ";

/// Reviews on a page: one line of these each that has stars.
const REVIEWS: usize = 2;

/// A page that was loaded.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Time from the request to the end of the answer.
    pub took: Duration,
    /// What came.
    pub text: String,
}

/// What a page shows of reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reviews {
    /// Text only, as of version 1.
    Plain,
    /// With black stars, as of version 2.
    Black,
    /// With red stars, as of version 3.
    Red,
    /// With an apology for ratings.
    Unrated,
    /// None, with an apology.
    Missing,
    /// There is no page.
    NoPage,
}

/// Returns the pages that curl wrote with [`CURL_FORMAT`].
pub(super) fn parse(output: &str) -> Result<Vec<Page>> {
    let mut rest = output;
    let mut pages = Vec::new();
    while let Some((text, after)) = rest.split_once(PAGE_END) {
        let (facts, after) = after.split_once('\n').context("no end of curl's facts")?;
        let (status, took) = facts.split_once(' ').context("no time")?;
        let took = Duration::try_from_secs_f64(took.parse()?)?;
        pages.push(Page { status: status.parse()?, took, text: text.to_owned() });
        rest = after;
    }
    Ok(pages)
}

// === impl Page ===

impl Page {
    /// Returns what it shows of reviews.
    pub fn reviews(&self) -> Reviews {
        let stars = self.text.matches("full stars").count() == REVIEWS;
        let shows = |text: &str| self.text.contains(text);
        if self.status != 200 {
            Reviews::NoPage
        } else if shows("Sorry, product reviews are currently unavailable for this book.") {
            Reviews::Missing
        } else if shows("Ratings service is currently unavailable") {
            Reviews::Unrated
        } else if stars && shows("color=\"red\"") {
            Reviews::Red
        } else if stars && shows("color=\"black\"") {
            Reviews::Black
        } else if shows("Reviewer1") {
            Reviews::Plain
        } else {
            Reviews::NoPage
        }
    }

    /// Returns whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        matches!(self.reviews(), Reviews::Plain | Reviews::Black | Reviews::Red)
            && self.text.contains("ISBN-10")
    }
}

// === impl Reviews ===

impl fmt::Display for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "no stars",
            Self::Black => "black stars",
            Self::Red => "red stars",
            Self::Unrated => "Ratings service is currently unavailable",
            Self::Missing => "Error fetching product reviews!",
            Self::NoPage => "no page",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_apart() -> Result<()> {
        let output = "Reviewer1\n\n--page 200 0.01\n<!-- full stars: -->\n<!-- full stars: --> \
            color=\"red\"\n--page 200 1.5\n\n--page 503 0.2\n";
        let pages = parse(output)?;
        let reviews: Vec<_> = pages.iter().map(Page::reviews).collect();
        assert_eq!(reviews, [Reviews::Plain, Reviews::Red, Reviews::NoPage]);
        assert_eq!(pages[1].took, Duration::from_millis(1500));
        Ok(())
    }
}
