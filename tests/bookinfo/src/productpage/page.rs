//! HTML, with the marks that the documents look for.

use std::fmt::Write as _;

use serde_json::Value;

use super::Said;

/// Name of the book.
pub(super) const TITLE: &str = "The Comedy of Errors";

/// Most stars of a rating.
const MOST_STARS: u64 = 5;

/// Facts of a book that are shown, with the names that they have at details.
const FACTS: [(&str, &str); 7] = [
    ("Type", "type"),
    ("Pages", "pages"),
    ("Publisher", "publisher"),
    ("Language", "language"),
    ("Author", "author"),
    ("ISBN-10", "ISBN-10"),
    ("ISBN-13", "ISBN-13"),
];

/// Returns the page at `/`.
pub(super) fn index() -> String {
    document("<p>A page about <a href=\"/productpage\">a book</a>, made of four services.</p>\n")
}

/// Returns the page of the book.
pub(super) fn product(user: Option<&str>, details: &Said, reviews: &Said) -> String {
    let mut body = match user {
        Some(user) => format!("<p>{} (<a href=\"/logout\">sign out</a>)</p>\n", escaped(user)),
        None => "<form method=\"post\" action=\"/login\"><input name=\"username\"></form>\n".into(),
    };
    // Writing to a string never fails.
    let _ = writeln!(body, "<h3>{TITLE}</h3>");
    match details {
        Ok(details) => write_details(&mut body, details),
        Err((_, sorry)) => write_error(&mut body, "details", sorry),
    }
    match reviews {
        Ok(reviews) => write_reviews(&mut body, reviews),
        Err((_, sorry)) => write_error(&mut body, "reviews", sorry),
    }
    document(&body)
}

fn document(body: &str) -> String {
    format!(
        "<!DOCTYPE html>
<html>
  <head>
    <title>Simple Bookstore App</title>
<meta charset=\"utf-8\">
</head>
<body>
{body}</body>
</html>
"
    )
}

fn write_details(page: &mut String, details: &Value) {
    page.push_str("<h4>Book Details</h4>\n<dl>\n");
    for (name, key) in FACTS {
        let value = &details[key];
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(page, "<dt>{name}:</dt><dd>{}</dd>", escaped(&value));
    }
    page.push_str("</dl>\n");
}

fn write_reviews(page: &mut String, reviews: &Value) {
    page.push_str("<h4>Book Reviews</h4>\n");
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let text = |key: &str| escaped(review[key].as_str().unwrap_or_default());
        let (said, reviewer) = (text("text"), text("reviewer"));
        let _ = writeln!(page, "<blockquote>\n<p>{said}</p>\n<small>{reviewer}</small>");
        let rating = &review["rating"];
        if let Some(error) = rating["error"].as_str() {
            let _ = writeln!(page, "<p><i>{}</i></p>", escaped(error));
        } else if let (Some(stars), Some(color)) =
            (rating["stars"].as_u64(), rating["color"].as_str())
        {
            write_stars(page, stars.min(MOST_STARS), &escaped(color));
        }
        page.push_str("</blockquote>\n");
    }
}

/// Writes stars with the marks of old pages (`full stars`, `glyphicon-star`) and of today's
/// (`text-red-500`).
fn write_stars(page: &mut String, stars: u64, color: &str) {
    let _ = writeln!(page, "<font color=\"{color}\">\n<!-- full stars: -->");
    for _ in 0..stars {
        let _ = writeln!(page, "<span class=\"glyphicon glyphicon-star text-{color}-500\"></span>");
    }
    page.push_str("<!-- empty stars: -->\n");
    for _ in stars..MOST_STARS {
        page.push_str("<span class=\"glyphicon glyphicon-star-empty\"></span>\n");
    }
    page.push_str("</font>\n");
}

fn write_error(page: &mut String, part: &str, sorry: &str) {
    let _ = writeln!(page, "<h4>Error fetching product {part}!</h4>\n<p>{sorry}</p>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;

    const SORRY: Said = Err((StatusCode::GATEWAY_TIMEOUT, "Sorry."));

    fn with_rating(rating: &Value) -> String {
        let reviews = [1, 2].map(|n| json!({"reviewer": n, "text": "good", "rating": rating}));
        product(None, &SORRY, &Ok(json!({ "reviews": reviews })))
    }

    #[test]
    fn stars_can_be_counted_as_the_documents_do() {
        let page = with_rating(&json!({"stars": 4, "color": "red"}));
        assert_eq!(page.matches("full stars").count(), 2);
        assert_eq!(page.matches("glyphicon-star ").count(), 8);
        assert_eq!(page.matches("glyphicon-star-empty").count(), 2);
        assert_eq!(page.matches("text-red-500").count(), 8);
        let without = with_rating(&Value::Null);
        assert!(!without.contains("star"), "{without}");
    }

    #[test]
    fn errors_are_told_in_the_words_of_the_documents() {
        let page = with_rating(&json!({"error": "Ratings service is currently unavailable"}));
        assert_eq!(page.matches("Ratings service is currently unavailable").count(), 2);
        assert!(page.contains("Error fetching product details!"), "{page}");
        let page = product(None, &SORRY, &SORRY);
        assert!(page.contains("Error fetching product reviews!"), "{page}");
    }

    #[test]
    fn both_pages_have_the_title_and_names_are_escaped() {
        for page in [index(), product(Some("<b>"), &SORRY, &SORRY)] {
            assert!(page.contains("<title>Simple Bookstore App</title>"), "{page}");
            assert!(!page.contains("<b>"), "{page}");
        }
    }
}
