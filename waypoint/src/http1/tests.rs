use http::{HeaderMap, Method, header::UPGRADE};

use super::{
    Violation::{
        BareLineFeed, Chunk, ContentLength, ControlCharacter, FieldName, FoldedLine, RequestLine,
        Trailer, TransferEncoding, TwoLengths,
    },
    *,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";

/// Looks at bytes that come in pieces of this size; returns what was wrong and how many were sound.
fn looked_at(bytes: &[u8], piece: usize) -> (Framing, Result<(), Refused>) {
    let mut framing = Framing::default();
    let mut sound = 0;
    for piece in bytes.chunks(piece) {
        if let Err(refused) = framing.advance(piece) {
            return (framing, Err(Refused { sound: sound + refused.sound, ..refused }));
        }
        sound += piece.len();
    }
    (framing, Ok(()))
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: b\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

#[test]
fn requests_follow_each_other_whichever_way_their_bytes_come() {
    for request in [
        GET.to_owned(),
        format!("\r\n{GET}"),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nX: \t\r\nY:a\u{e9}b\r\n\r\n".to_owned(),
        post("Content-Length: 0\r\n", ""),
        post("Content-Length:\t005 \r\n", "\n\r\n\0x"),
        chunked("0\r\n\r\n"),
        chunked("5;a=\"b\"\r\n\n\r\n\0x\r\n0a ; x\r\n0123456789\r\n0\r\nX: y\r\n\r\n"),
        chunked("0000000000000001\r\nx\r\n000\r\n\r\n"),
        post("Transfer-Encoding: \t Chunked\t\r\n", "0\r\n\r\n"),
        post("Connection: upgrade, http2-settings\r\nUpgrade: H2C\r\n", ""),
        post("Expect: 100-continue\r\nContent-Length: 3\r\n", "abc"),
    ] {
        // What follows is seen for what it is, or the ends are not where they should be.
        let twice = format!("{request}{request}bad\n");
        for piece in [1, 2, 7, 1 << 20] {
            let (_, found) = looked_at(twice.as_bytes(), piece);
            let refused = found.unwrap_err();
            assert_eq!(refused.violation, BareLineFeed, "{request:?} in {piece}");
            assert!(refused.sound >= 2 * request.len(), "{request:?} in {piece}");
        }
    }
}

/// Checks what is wrong with each request, whichever way its bytes come.
fn assert_refused(cases: &[(String, Violation)]) {
    for (request, expected) in cases {
        for piece in [1, 3, 1 << 20] {
            let (_, found) = looked_at(request.as_bytes(), piece);
            let violation = found.map_err(|refused| refused.violation);
            assert_eq!(violation, Err(*expected), "{request:?} in {piece}");
        }
    }
}

/// trust.md row 49.
#[test]
fn lengths_that_can_be_read_in_two_ways_are_refused() {
    assert_refused(&[
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), TwoLengths),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), TwoLengths),
        (post("Content-Length: 5\r\nContent-Length: 6\r\n", ""), ContentLength),
        (post("Content-Length: 5\r\ncontent-length: 5\r\n", ""), ContentLength),
        (post("Content-Length: +5\r\n", ""), ContentLength),
        (post("Content-Length: -5\r\n", ""), ContentLength),
        (post("Content-Length: 0x5\r\n", ""), ContentLength),
        (post("Content-Length: 5,5\r\n", ""), ContentLength),
        (post("Content-Length: 5 5\r\n", ""), ContentLength),
        (post("Content-Length: 5.0\r\n", ""), ContentLength),
        (post("Content-Length:\r\n", ""), ContentLength),
        (post("Content-Length: 18446744073709551616\r\n", ""), ContentLength),
        (post("Transfer-Encoding: xchunked\r\n", ""), TransferEncoding),
        (post("Transfer-Encoding: \u{a0}chunked\r\n", ""), TransferEncoding),
        (post("Transfer-Encoding: chunked, identity\r\n", ""), TransferEncoding),
        (post("Transfer-Encoding: gzip, chunked\r\n", ""), TransferEncoding),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", ""), TransferEncoding),
        (post("Transfer-Encoding:\r\n", ""), TransferEncoding),
        (post("Transfer-Encoding: \u{b}chunked\r\n", ""), ControlCharacter),
        (post("Transfer-Encoding : chunked\r\n", ""), FieldName),
        (post("Content-Length : 5\r\n", ""), FieldName),
        (post(" Transfer-Encoding: chunked\r\n", ""), FoldedLine),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), TransferEncoding),
    ]);
}

/// trust.md row 50.
#[test]
fn lines_that_can_be_read_in_two_ways_are_refused() {
    let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
    assert_refused(&[
        ("GET / HTTP/1.1\nHost: b\r\n\r\n".to_owned(), BareLineFeed),
        (head("Host: b\nX: y"), BareLineFeed),
        (head("Host: b\r\n\nX: y"), BareLineFeed),
        (head("Host: b\rX: y"), ControlCharacter),
        (head("X: a\r\n b"), FoldedLine),
        (head("X: a\r\n\tb"), FoldedLine),
        (head("X: a\0b"), ControlCharacter),
        (head("X: a\u{7f}b"), ControlCharacter),
        (head("X y"), FieldName),
        (head(": y"), FieldName),
        (head("X(y): z"), FieldName),
        ("G\u{1}ET / HTTP/1.1\r\n\r\n".to_owned(), ControlCharacter),
        ("G\u{e9}T / HTTP/1.1\r\n\r\n".to_owned(), RequestLine),
        ("GET  / HTTP/1.1\r\n\r\n".to_owned(), RequestLine),
        ("GET / HTTP/1.1 \r\n\r\n".to_owned(), RequestLine),
        ("GET\t/ HTTP/1.1\r\n\r\n".to_owned(), RequestLine),
        ("GET / a HTTP/1.1\r\n\r\n".to_owned(), RequestLine),
        ("GET /\r\n\r\n".to_owned(), RequestLine),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), RequestLine),
        ("GET / http/1.1\r\n\r\n".to_owned(), RequestLine),
        (" GET / HTTP/1.1\r\n\r\n".to_owned(), RequestLine),
    ]);
}

/// trust.md row 51.
#[test]
fn chunks_that_can_be_read_in_two_ways_are_refused() {
    assert_refused(&[
        (chunked("x\r\n"), Chunk),
        (chunked("\r\n"), Chunk),
        (chunked(" 5\r\n"), Chunk),
        (chunked("5 \r\n"), Chunk),
        (chunked("0x5\r\n"), Chunk),
        (chunked("+5\r\n"), Chunk),
        (chunked("-1\r\n"), Chunk),
        (chunked("5\n01234\r\n"), BareLineFeed),
        (chunked("5;a\n01234\r\n"), BareLineFeed),
        (chunked("10000000000000000\r\n"), Chunk),
        (chunked("00000000000000001\r\n"), Chunk),
        (chunked("1\r\nab\r\n"), Chunk),
        (chunked("1\r\na\n"), BareLineFeed),
        (chunked("0\r\nX: y\n\r\n"), BareLineFeed),
        (chunked("0\r\nContent-Length: 5\r\n\r\n"), Trailer),
        (chunked("0\r\nTransfer-encoding: chunked\r\n\r\n"), Trailer),
        (chunked("0\r\nHost: c\r\n\r\n"), Trailer),
        (chunked("0\r\nX : y\r\n\r\n"), FieldName),
    ]);
}

#[test]
fn the_end_of_what_is_wrong_is_never_let_through() {
    let request = "GET / HTTP/1.1\r\nHost: b\r\nX: y\n\r\nGET /next";
    let (_, found) = looked_at(request.as_bytes(), 1 << 20);
    assert_eq!(found, Err(Refused { sound: 25, violation: BareLineFeed }));
    assert_eq!(&request[..25], "GET / HTTP/1.1\r\nHost: b\r\n");
    // Of two lengths the last line of the head tells.
    let request = post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "");
    let (_, found) = looked_at(request.as_bytes(), 1 << 20);
    assert_eq!(found.unwrap_err().sound, request.len() - 2);
}

#[test]
fn nothing_is_looked_at_after_another_protocol_has_been_asked_for() {
    for request in [
        "CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        post("Upgrade: h2c, websocket\r\nContent-Length: 2\r\n", "ab"),
    ] {
        for piece in [1, 1 << 20] {
            let bytes = [request.as_bytes(), b"\x81\0\n\n\xff\n"].concat();
            let (framing, found) = looked_at(&bytes, piece);
            assert_eq!((framing.state, found), (State::Other, Ok(())), "{request:?}");
        }
    }
    let headers = |upgrade: &str| HeaderMap::from_iter([(UPGRADE, upgrade.parse().unwrap())]);
    for (method, headers, expected) in [
        (Method::GET, HeaderMap::new(), false),
        (Method::CONNECT, HeaderMap::new(), true),
        (Method::GET, headers("websocket"), true),
        (Method::GET, headers("h2c"), false),
        (Method::GET, headers("h2c, websocket"), true),
    ] {
        assert_eq!(asks_for_another_protocol(&method, &headers), expected, "{method} {headers:?}");
    }
}

#[test]
fn a_head_is_under_way_from_its_first_byte_to_its_last() {
    for (bytes, expected) in [
        ("", false),
        ("\r\n", false),
        ("G", true),
        ("GET / HTTP/1.1\r\n", true),
        ("GET / HTTP/1.1\r\nX: y\r\n\r", true),
        ("GET / HTTP/1.1\r\nX: y\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", false),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5", false),
    ] {
        let (framing, found) = looked_at(bytes.as_bytes(), 1);
        assert_eq!((framing.is_in_head(), found), (expected, Ok(())), "{bytes:?}");
    }
}

#[test]
fn a_line_without_end_is_given_up() {
    let mut framing = Framing::default();
    let endless = vec![b'x'; 1 << 10];
    let most = MAX_LINE_BYTES / endless.len();
    for _ in 0..most {
        assert_eq!(framing.advance(&endless), Ok(()));
    }
    let refused = framing.advance(&endless).unwrap_err();
    assert_eq!((refused.sound, refused.violation), (0, Violation::EndlessLine));
    assert!(framing.line.capacity() <= 2 * MAX_LINE_BYTES);
}

#[test]
fn heads_that_are_too_large_are_told_by_their_bytes_and_by_their_headers() {
    let head = |fields: String| format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let long = |bytes: usize| head(format!("x: {}\r\n", "y".repeat(bytes - 23)));
    assert_eq!(long(MAX_HEAD_BYTES).len(), MAX_HEAD_BYTES);
    for (request, expected) in [
        (long(MAX_HEAD_BYTES), false),
        (long(MAX_HEAD_BYTES + 1), true),
        (head("x: y\r\n".repeat(MAX_HEADERS)), false),
        (head("x: y\r\n".repeat(MAX_HEADERS + 1)), true),
        // Each on its own.
        (GET.repeat(MAX_HEAD_BYTES / 10), false),
        (chunked(&"1\r\na\r\n".repeat(MAX_HEAD_BYTES)), false),
    ] {
        for piece in [999, 1 << 20] {
            let (framing, found) = looked_at(request.as_bytes(), piece);
            assert_eq!(found, Ok(()));
            assert_eq!(framing.is_head_too_large(), expected, "{} bytes", request.len());
        }
    }
}
