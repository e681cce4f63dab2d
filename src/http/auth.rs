//! Who may ask: the bearer token.

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

/// The token that is asked for, as its hash; the token itself is not kept.
#[derive(Clone, Copy)]
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether the header `authorization` carries the token. Hashes are compared, all bytes of them, so that neither the time it
    /// takes nor the length tells anything about the token.
    fn admits(&self, authorization: Option<&HeaderValue>) -> bool {
        let Some((scheme, credentials)) = authorization.and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        let given: [u8; 32] = Sha256::digest(credentials.trim_start().as_bytes()).into();
        let difference = self.0.iter().zip(given).fold(0, |difference, (ours, theirs)| difference | (ours ^ theirs));
        scheme.eq_ignore_ascii_case("bearer") && std::hint::black_box(difference) == 0
    }
}

/// Lets a request pass that carries the token, or all when none is set.
pub(super) async fn check(token: Option<Token>, request: Request, next: Next) -> Response {
    match token {
        Some(token) if !token.admits(request.headers().get(header::AUTHORIZATION)) => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            "send the header `authorization: Bearer <token>` with the token of http.token_file\n",
        )
            .into_response(),
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_token_is_admitted() {
        let token = Token::new("s3cret");
        for (header, admitted) in [
            (Some("Bearer s3cret"), true),
            (Some("bearer  s3cret"), true),
            (Some("Bearer s3cre"), false),
            (Some("Bearer s3cret2"), false),
            (Some("Bearer "), false),
            (Some("Basic s3cret"), false),
            (Some("s3cret"), false),
            (Some(""), false),
            (None, false),
        ] {
            let value = header.map(HeaderValue::from_static);
            assert_eq!(token.admits(value.as_ref()), admitted, "{header:?}");
        }
    }
}
