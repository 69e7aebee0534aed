//! Authenticates each request by its key and checks the scope: no handler runs without an entry in the table of routes.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use microsandbox_wire::error::code;

use crate::app::App;
use crate::concurrency_limit::Permit;
use crate::connections::Place;
use crate::error::{ApiError, ApiResult};
use crate::keys::Key;
use crate::table;
use crate::tenancy::{Caller, forbidden};

/// Attached to the response, for the access log.
#[derive(Clone, Default)]
pub struct RequestInfo {
    pub route: Option<&'static str>,
    pub key: Option<String>,
    /// Held until the body of the response has ended.
    pub permit: Option<Arc<Permit>>,
}

/// Finds the route, checks the key and its scope, and counts the request against the limit of the key.
pub async fn authorize(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let Some(route) = table::find(&method, &path) else {
        return seen(no_method(&path), RequestInfo { route: table::template(&path), ..RequestInfo::default() });
    };
    let mut about = RequestInfo { route: Some(route.path), ..RequestInfo::default() };
    let mut caller = None;
    if !route.scopes.is_empty() {
        let key = match authenticate(&app, request.headers()) {
            Ok(key) => key,
            Err(error) => {
                if error.status == StatusCode::UNAUTHORIZED {
                    app.metrics.refused_keys.inc();
                }
                return seen(error.into_response(), about);
            }
        };
        if let Some(place) = request.extensions().get::<Arc<Place>>() {
            place.is_known_now();
        }
        about.key = Some(key.name.clone());
        if !route.scopes.iter().any(|scope| key.has(*scope)) {
            return seen(forbidden(route.scopes).into_response(), about);
        }
        let Some(permit) = app.by_key.acquire(&key.id) else {
            return seen(
                ApiError::too_many("too many concurrent requests with this key: wait for one to end").into_response(),
                about,
            );
        };
        about.permit = Some(Arc::new(permit));
        request.extensions_mut().insert(Caller::of(&key));
        caller = Some(Caller::of(&key));
    }
    let mut response = next.run(request).await;
    if let (Some(caller), Some(error)) = (caller, response.extensions_mut().remove::<ApiError>()) {
        response = caller.reads(error, &app.private).into_response();
    }
    seen(response, about)
}

fn seen(mut response: Response, about: RequestInfo) -> Response {
    response.extensions_mut().insert(about);
    response
}

/// 405 as an error body, with the methods that the path has.
fn no_method(path: &str) -> Response {
    let text = "this path does not support the method; the header Allow lists those that it supports";
    let mut response = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, code::INVALID_REQUEST, text).into_response();
    if let Ok(allow) = table::methods(path).join(", ").parse() {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn authenticate(app: &App, headers: &HeaderMap) -> ApiResult<Key> {
    let refuse = |why: &str| ApiError::new(StatusCode::UNAUTHORIZED, code::INVALID_API_KEY, why);
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(refuse("exactly one header `Authorization: Bearer <key>` is required"));
    };
    let text = value.to_str().ok().and_then(|value| value.split_once(' '));
    let Some((_, text)) = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Err(refuse("the header must have the form `Authorization: Bearer <key>`"));
    };
    let found = app.keys.find(text.trim()).map_err(|error| {
        tracing::error!(%error, "the keys cannot be read: every request that needs a key is refused");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, "the server cannot read its keys")
    })?;
    match found {
        Some(key) if key.expired(Utc::now()) => {
            Err(refuse("this key has expired: ask the owner of the server for a new one"))
        }
        Some(key) => Ok(key),
        None => Err(refuse("this key is unknown to this server, or was revoked")),
    }
}
