//! The limit of open files.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard limit, since each connection to a handler is an open file.
/// The soft limit is low (1024 in most containers) for programs that call `select`. Only for programs that
/// start no others, which would inherit it.
pub fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// What to do about an error that means that no more files, and so no more connections, can be opened. `None`
/// for any other error.
#[must_use]
pub fn file_limit_advice(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => {
            Some("this process has reached its limit of open files; raise it (`ulimit -n`)")
        }
        Some(Errno::ENFILE) => {
            Some("this machine has reached its limit of open files; raise it (`fs.file-max`)")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_limit() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(512), hard).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }

    #[test]
    fn only_an_error_about_open_files_gets_this_advice() {
        for errno in [Errno::EMFILE, Errno::ENFILE] {
            assert!(
                file_limit_advice(&io::Error::from(errno))
                    .is_some_and(|advice| advice.contains("open files"))
            );
        }
        assert_eq!(file_limit_advice(&io::ErrorKind::ConnectionRefused.into()), None);
    }
}
