//! Why there is no response: the cause beneath what a client library reports.

/// The innermost cause: the outer ones state only that a request failed.
pub fn root(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The error of the operating system in the chain of causes.
pub fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<std::io::Error> {
    let errno = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    match errno {
        Some(errno) => Some(std::io::Error::from_raw_os_error(errno)),
        None => os_error(error.source()?),
    }
}
