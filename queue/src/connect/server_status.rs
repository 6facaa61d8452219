//! Decides whether a server is suitable, by the parameters that it reports before it is ready.

use super::{fault::Fault, values::Servers};

/// The parameters that the server reports. Every supported release reports them; a pooler may not.
#[derive(Debug, Default)]
pub(super) struct ServerStatus {
    standby: bool,
    read_only: bool,
}

impl ServerStatus {
    pub(super) fn note(&mut self, report: &[u8]) {
        let mut words = report.split(|byte| *byte == 0);
        let is_on = |value: Option<&[u8]>| value == Some(b"on");
        match words.next() {
            Some(b"in_hot_standby") => self.standby = is_on(words.next()),
            Some(b"default_transaction_read_only") => self.read_only = is_on(words.next()),
            _ => (),
        }
    }

    pub(super) fn check(&self, wanted: Servers) -> Result<(), Fault> {
        let why = match wanted {
            Servers::ReadWrite | Servers::Primary if self.standby => "it is a standby, which takes no writes",
            Servers::ReadWrite if self.read_only => {
                "it takes no writes (default_transaction_read_only is on)"
            }
            Servers::ReadOnly if !self.standby && !self.read_only => {
                "it takes writes, and target_session_attrs is read-only"
            }
            Servers::Standby | Servers::PreferStandby if !self.standby => {
                "it is not a standby, and target_session_attrs asks for one"
            }
            _ => return Ok(()),
        };
        Err(Fault::Unsuitable(why.to_owned()))
    }
}
