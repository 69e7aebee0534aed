//! Names and texts of error numbers.

macro_rules! names {
    ($($name:ident),+ $(,)?) => {
        /// `ENOENT` for 2, and so on; `None` for numbers outside the table.
        pub fn name(errno: i32) -> Option<&'static str> {
            match errno { $(libc::$name => Some(stringify!($name)),)+ _ => None }
        }
    };
}

names! {
    EPERM, ENOENT, ESRCH, EINTR, EIO, ENXIO, E2BIG, ENOEXEC, EBADF, ECHILD, EAGAIN, ENOMEM, EACCES, EFAULT, EBUSY, EEXIST,
    EXDEV, ENODEV, ENOTDIR, EISDIR, EINVAL, ENFILE, EMFILE, ENOTTY, ETXTBSY, EFBIG, ENOSPC, ESPIPE, EROFS, EMLINK, EPIPE,
    ERANGE, EDEADLK, ENAMETOOLONG, ENOSYS, ENOTEMPTY, ELOOP, EOVERFLOW, EILSEQ, EUSERS, EOPNOTSUPP, ECONNRESET, ESTALE,
    EDQUOT, ELIBBAD, ECANCELED, ETIMEDOUT, ENODATA,
}

/// The system's text without the number behind it.
pub fn text(errno: i32) -> String {
    let full = std::io::Error::from_raw_os_error(errno).to_string();
    match full.find(" (os error") {
        Some(end) => full[..end].to_owned(),
        None => full,
    }
}
