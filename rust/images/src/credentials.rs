//! Stub until the credential stores land.
use microsandbox_core::error::MicrosandboxResult;
use microsandbox_home::Home;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    Basic { username: String, password: String },
    IdentityToken(String),
    Bearer(String),
}

pub async fn find(_home: &Home, _host: &str, _repository: &str) -> MicrosandboxResult<Option<Credential>> {
    Ok(None)
}
