//! Logs on standard error, as text for people or JSON for programs.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use rowlock_daemon::{LogLines, log_filter};
use serde::Deserialize;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Text for people.
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

/// Installs a `tracing` subscriber that writes to standard error. `RUST_LOG` sets the level; `info` is the
/// default.
pub fn install(format: LogFormat) {
    let chosen = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = chosen.or_else(|| log_filter("info").parse().ok()).unwrap_or_default();
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(LogLines::new).with_ansi(colours);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    // Fails only if the program has already installed a subscriber. Then that one is used.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
