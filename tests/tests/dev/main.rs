//! What a user does with `rowlock` at a terminal: `rowlock dev` with its processes, and every command.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod commands;
mod edits;
mod hostile;
mod idle;
mod interrupts;
mod kills;
mod locks;
mod mistakes;
mod outputs;
mod roles;
mod running;
mod scaling;
mod signals;
mod stage;
mod surroundings;
mod terminals;
mod watching;
