//! The limit of a request's head. The buffer of the HTTP library has a limit as well, but one that a head in few pieces passes,
//! and that counts bytes of the body which came with it; here the head itself is measured.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use microsandbox_wire::error::code;

use crate::app::App;
use crate::error::ApiError;

/// Bytes of a request line beside method and target: two spaces, the version, the line end.
const LINE: usize = " ".len() + " HTTP/1.1\r\n".len();
/// Bytes of a header line beside name and value.
const HEADER: usize = ": ".len() + "\r\n".len();
/// The empty line.
const END: usize = "\r\n".len();

/// Refuses a request whose head is larger than the limit `head`.
pub async fn head_limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (size, limit) = (size(&request), app.limits.head);
    if size <= limit {
        return next.run(request).await;
    }
    let text =
        format!("the request line and headers are {size} bytes long and the limit is {limit}: send less in them");
    ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, code::TOO_LARGE, text).into_response()
}

/// In the notation with one space after each colon.
fn size<B>(request: &axum::http::Request<B>) -> usize {
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum();
    request.method().as_str().len() + request.uri().to_string().len() + LINE + headers + END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_counted_as_it_is_sent() {
        let text = "GET /v1/sandboxes?limit=1 HTTP/1.1\r\nhost: a\r\nx-long: bc\r\n\r\n";
        let request = axum::http::Request::get("/v1/sandboxes?limit=1").header("host", "a").header("x-long", "bc");
        assert_eq!(size(&request.body(()).unwrap()), text.len());
    }
}
