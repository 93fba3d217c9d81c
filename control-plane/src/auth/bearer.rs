//! The token of a request.

use http::{HeaderMap, header::AUTHORIZATION};

use super::AuthError;

const SCHEME: &str = "bearer";

/// Longest token, in bytes; those of Kubernetes have one to two thousand.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Returns the bearer token of a request with the given headers.
pub fn token(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(AuthError::NoToken);
    };
    let value = value.to_str().map_err(|_| AuthError::NoToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(AuthError::NoToken)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) || token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(AuthError::NoToken);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_sent_once_under_its_scheme() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            token(&headers).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(of(&["bearer abc"]), Ok("abc".to_owned()));
        for bad in [&[][..], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(of(bad), Err(AuthError::NoToken), "{bad:?}");
        }
    }
}
