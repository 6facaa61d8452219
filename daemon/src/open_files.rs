//! The limit of open files.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: the soft one is low (1024 in most containers) for the
/// sake of programs that call `select`, and connections to a handler are open files. Meant for programs that
/// start no others, which would inherit it.
pub fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// What to say of an error that means that no file, and so no connection, can be opened; `None`: it means
/// something else.
#[must_use]
pub fn file_limit_advice(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => {
            Some("this process has as many files open as it may; raise its limit of open files (`ulimit -n`)")
        }
        Some(Errno::ENFILE) => {
            Some("this machine has as many files open as it may; raise the kernel's limit (`fs.file-max`)")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(512), hard).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }

    #[test]
    fn a_file_limit_is_named_and_nothing_else_is_taken_for_one() {
        for errno in [Errno::EMFILE, Errno::ENFILE] {
            assert!(
                file_limit_advice(&io::Error::from(errno)).is_some_and(|said| said.contains("files open"))
            );
        }
        assert_eq!(file_limit_advice(&io::ErrorKind::ConnectionRefused.into()), None);
    }
}
