//! Who is logged in, in a cookie.

use form_urlencoded::{byte_serialize, parse};
use http::{HeaderMap, HeaderValue, header::COOKIE};

const NAME: &str = "session";

/// Returns who is logged in.
pub(super) fn user(request: &HeaderMap) -> Option<String> {
    let cookies = request.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    let session = pairs.find_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))?;
    // As if it were the name of a field, which takes the escapes back.
    let (user, _) = parse(session.as_bytes()).next()?;
    Some(user.into_owned())
}

/// Returns the cookie of someone who logs in.
pub(super) fn begin(user: &str) -> HeaderValue {
    let user: String = byte_serialize(user.as_bytes()).collect();
    // What is escaped can be a header.
    let cookie = HeaderValue::try_from(format!("{NAME}={user}; HttpOnly; Path=/"));
    cookie.unwrap_or_else(|_| end())
}

/// Returns the cookie that ends a session.
pub(super) fn end() -> HeaderValue {
    HeaderValue::from_static("session=; Max-Age=0; HttpOnly; Path=/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returned(cookie: &HeaderValue) -> HeaderMap {
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let sent = HeaderValue::try_from(format!("theme=dark; {cookie}")).unwrap();
        HeaderMap::from_iter([(COOKIE, sent)])
    }

    #[test]
    fn a_session_is_the_name_that_it_was_begun_with() {
        for name in ["jason", "Jörg; a=b", "a&b"] {
            assert_eq!(user(&returned(&begin(name))).as_deref(), Some(name));
        }
    }

    #[test]
    fn nobody_is_logged_in_without_a_session() {
        assert_eq!(user(&HeaderMap::new()), None);
        assert_eq!(user(&returned(&end())), None);
        let other = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("mysession=jason"))]);
        assert_eq!(user(&other), None);
    }
}
