//! Tests of the server through its socket, as one program: each further one would link the whole server once more.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod dialects;
mod protection;
mod support;
