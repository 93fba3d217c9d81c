//! Text in columns.

/// Renders a table with a line of heads. After the first `texts` columns come numbers, which are
/// aligned to the right.
pub(crate) fn render(heads: &[String], rows: &[Vec<String>], texts: usize) -> String {
    let lines: Vec<&[String]> =
        std::iter::once(heads).chain(rows.iter().map(Vec::as_slice)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().enumerate().map(|(i, c)| pad(c, widths[i], i < texts)).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Formats a number with three significant digits, or with all of those before the point.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => thousands(&format!("{value:.0}")),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn pad(cell: &str, width: usize, is_text: bool) -> String {
    if is_text { format!("{cell:width$}") } else { format!("{cell:>width$}") }
}

/// Puts commas into a whole number.
pub(crate) fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_mean_something() {
        for (value, expected) in [
            (0.194, "0.19"),
            (9.7, "9.70"),
            (56.93, "56.9"),
            (276.4, "276"),
            (200_225.3, "200,225"),
        ] {
            assert_eq!(number(value), expected);
        }
        assert_eq!(thousands("1234567"), "1,234,567");
        assert_eq!(thousands("100"), "100");
    }

    #[test]
    fn numbers_are_aligned_to_the_right() {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let text = render(&row(["a", "b", "c", "d"]), &[row(["x", "y", "z", "10"])], 3);
        assert_eq!(text, "a  b  c   d\nx  y  z  10\n");
    }
}
