//! What a user does with `rowlock` at a terminal: `rowlock dev` with its processes, and every command.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod alerts;
mod closed_output;
mod commands;
mod dashboards;
mod exit_codes;
mod harness;
mod host_environment;
mod hostile_clients;
mod idle;
mod interrupts;
mod locks;
mod manifest_edits;
mod prometheus;
mod roles;
mod running_command;
mod scaling;
mod sidecar;
mod sigkill;
mod signals;
mod simulate;
mod status_watch;
mod terminal_output;
