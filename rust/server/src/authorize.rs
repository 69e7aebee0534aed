//! Who asks, and whether they may: nothing behind it runs without an entry in the table of routes.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use microsandbox_wire::error::code;
use serde_json::json;

use crate::app::App;
use crate::concurrency_limit::Permit;
use crate::error::{Answer, ApiError};
use crate::keys::Key;
use crate::table;

/// The key that a request came with.
#[derive(Clone)]
pub struct Caller {
    pub id: String,
}

/// Put on the answer for the access log.
#[derive(Clone, Default)]
pub struct Seen {
    pub route: Option<&'static str>,
    pub key: Option<String>,
    /// Held until the answer's body has ended.
    pub permit: Option<Arc<Permit>>,
}

/// Looks the route up, asks for the key, counts.
pub async fn authorize(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let Some(route) = table::find(&method, &path) else {
        return seen(no_method(&path), Seen { route: table::template(&path), ..Seen::default() });
    };
    let mut about = Seen { route: Some(route.path), ..Seen::default() };
    if let Some(scope) = route.scope {
        let key = match authenticate(&app, request.headers()) {
            Ok(key) => key,
            Err(error) => {
                if error.status == StatusCode::UNAUTHORIZED {
                    app.metrics.refused_keys.inc();
                }
                return seen(error.into_response(), about);
            }
        };
        about.key = Some(key.name.clone());
        if !key.has(scope) {
            let text = format!("the key {} lacks the scope {}", key.name, scope.as_str());
            let error = ApiError::new(StatusCode::FORBIDDEN, code::FORBIDDEN, text);
            return seen(error.details(json!({ "scope": scope.as_str() })).into_response(), about);
        }
        let Some(permit) = app.by_key.acquire(&key.id) else {
            return seen(ApiError::too_many("too many requests at once with this key").into_response(), about);
        };
        about.permit = Some(Arc::new(permit));
        request.extensions_mut().insert(Caller { id: key.id });
    }
    seen(next.run(request).await, about)
}

fn seen(mut response: Response, about: Seen) -> Response {
    response.extensions_mut().insert(about);
    response
}

/// 405 in our form, with what is allowed.
fn no_method(path: &str) -> Response {
    let text = "this path does not know that method";
    let mut response = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, code::INVALID_REQUEST, text).into_response();
    if let Ok(allow) = table::methods(path).join(", ").parse() {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn authenticate(app: &App, headers: &HeaderMap) -> Answer<Key> {
    let refuse = |why: &str| ApiError::new(StatusCode::UNAUTHORIZED, code::INVALID_API_KEY, why);
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(refuse("exactly one header `Authorization: Bearer <key>` is needed"));
    };
    let text = value.to_str().ok().and_then(|value| value.split_once(' '));
    let Some((_, text)) = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Err(refuse("the header must read `Authorization: Bearer <key>`"));
    };
    let found = app.keys.find(text.trim()).map_err(|error| {
        tracing::error!(%error, "the keys cannot be read: nobody is let in");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, "the server cannot read its keys")
    })?;
    match found {
        Some(key) if key.expired(Utc::now()) => Err(refuse("this key has expired")),
        Some(key) => Ok(key),
        None => Err(refuse("this key is not known here, or was revoked")),
    }
}
