//! Logs on standard error, as lines for people or for machines.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use rowlock_daemon::LogLines;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Json,
    Text,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(format!("{text:?} is neither json nor text")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// sqlx warns of each broken connection and slow acquire; what follows from those we log and count ourselves.
const DEFAULT_FILTER: &str = "info,sqlx=error,sqlx_core=error";

/// Installs the subscriber; `RUST_LOG` chooses what is logged, `info` without it.
pub fn install(format: LogFormat) {
    let chosen = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = chosen.or_else(|| DEFAULT_FILTER.parse().ok()).unwrap_or_default();
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(LogLines::new).with_ansi(colours);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    // Fails only when somebody else installed one first, and then theirs is the one to use.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
