//! Tests of the server through its socket, as one program: each further one would link the whole server once more.

mod dialects;
mod protection;
mod support;
