//! `WWW-Authenticate`: what a registry asks for before it answers (RFC 9110 section 11, the distribution specification's
//! token authentication).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Longest header and parameter that is looked at.
const MAX_BYTES: usize = 8 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer {
        /// Address of the token service.
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best challenge of a response: a token before a password.
    pub fn of(headers: &HeaderMap) -> Option<Challenge> {
        let values = headers.get_all(WWW_AUTHENTICATE).into_iter().filter_map(|value| value.to_str().ok());
        let found: Vec<Challenge> = values.filter(|value| value.len() <= MAX_BYTES).flat_map(parse).collect();
        let bearer = found.iter().position(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        found.into_iter().nth(bearer.unwrap_or(0))
    }
}

fn parse(value: &str) -> Vec<Challenge> {
    let known = http_auth::parser::ChallengeParser::new(value).map_while(Result::ok);
    known.filter_map(|challenge| understood(&challenge)).collect()
}

fn understood(challenge: &http_auth::ChallengeRef<'_>) -> Option<Challenge> {
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameter = |wanted: &str| {
        let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
    };
    Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service"), scope: parameter("scope") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = Challenge::Bearer {
            realm: "https://a.example/token".into(),
            service: Some("reg".into()),
            scope: Some("repository:x:pull,push".into()),
        };
        let text = r#"Bearer realm="https://a.example/token",service="reg",scope="repository:x:pull,push""#;
        assert_eq!(of(&[text]), Some(bearer.clone()));
        assert_eq!(of(&[r#"Basic realm="x""#, text]), Some(bearer.clone()));
        assert_eq!(of(&[&format!(r#"Basic realm="x", {text}"#)]), Some(bearer));
        assert_eq!(of(&[r#"BASIC realm="x""#]), Some(Challenge::Basic));
    }

    #[test]
    fn what_cannot_be_understood_asks_for_nothing() {
        for text in
            ["", "Negotiate", "Bearer", r#"Bearer service="x""#, r#"Bearer realm="""#, "=,=\"", "Digest realm=x"]
        {
            assert_eq!(of(&[text]), None, "{text}");
        }
        assert_eq!(of(&[&format!(r#"Bearer realm="https://{}""#, "a".repeat(MAX_BYTES))]), None);
        assert_eq!(of(&[]), None);
    }
}
