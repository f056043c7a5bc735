//! Carries out armed faults on a session's commands.
//!
//! Not here: choosing them (`behaviour::Faults`).

use crate::sandbox::behaviour::Act;

use super::session::{Session, Step, Work};

impl Session {
    /// Carries out an armed fault.
    pub(super) fn suffer(&mut self, act: Act, tag: &str, work: Work) {
        let tagged = |text: Vec<u8>| match String::from_utf8(text) {
            Ok(text) => text.replace("{tag}", tag).into_bytes(),
            Err(binary) => binary.into_bytes(),
        };
        match act {
            Act::Answer(text) => self.instead(format!("{tag} {text}\r\n").as_bytes(), &work),
            Act::Instead(text) => self.instead(&tagged(text), &work),
            Act::Bye(text) => self.bye(&text),
            Act::Drop => self.then.push_back(Step::Close),
            Act::DropAfter(octets) => {
                self.cut = Some(octets);
                self.perform(work);
            }
            Act::Delay(pause) => {
                self.then.push_back(Step::Hold(pause));
                self.held = Some(work);
            }
            Act::Linger(pause) => {
                self.linger = Some(pause);
                self.perform(work);
            }
            Act::Inject(text) => {
                self.output.extend_from_slice(&tagged(text));
                self.perform(work);
            }
        }
    }

    fn instead(&mut self, text: &[u8], work: &Work) {
        self.output.extend_from_slice(text);
        if matches!(work, Work::Literal) {
            self.input.skip();
        }
    }
}
