//! The client's side of a session without its I/O: bytes in, responses out, tags given and taken back, budgets kept.
//!
//! Not here: sockets and deadlines (`client`), and what the verbs make of responses.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::{
    error::Fault,
    framing::{Allowance, Framer},
    limits::Limits,
    response::{Condition, Response, Status, Tag},
};

#[derive(Debug)]
pub(super) struct Session {
    framer: Framer,
    greeted: bool,
    last_tag: Tag,
    in_flight: VecDeque<Tag>,
    responses_max: u32,
    responses_left: u32,
}

impl Session {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            framer: Framer::new(Allowance::plain(limits)),
            greeted: false,
            last_tag: 0,
            in_flight: VecDeque::new(),
            responses_max: limits.responses_max,
            responses_left: limits.responses_max,
        }
    }

    /// A session that goes on after STARTTLS: no greeting comes.
    pub(super) fn greeted(limits: &Limits) -> Self {
        Self { greeted: true, ..Self::new(limits) }
    }

    /// Opens a command: its tag, and what its answers may be.
    pub(super) fn open(&mut self, allowance: Allowance) -> Tag {
        self.framer.allow(allowance);
        self.responses_left = self.responses_max;
        self.last_tag = self.last_tag.wrapping_add(1);
        self.in_flight.push_back(self.last_tag);
        self.last_tag
    }

    pub(super) fn read_buffer(&mut self) -> &mut BytesMut {
        self.framer.read_buffer()
    }

    pub(super) fn has_bytes(&self) -> bool {
        self.framer.has_bytes()
    }

    /// Gives memory back while little is expected.
    pub(super) fn shrink(&mut self) {
        self.framer.shrink();
        self.in_flight.shrink_to(2);
    }

    /// The next response that has come whole.
    ///
    /// # Errors
    /// The server broke the protocol or passed a limit; nothing that follows can be trusted.
    pub(super) fn next(&mut self) -> Result<Option<Response>, Fault> {
        let Some(frame) = self.framer.next()? else { return Ok(None) };
        let response = Response::parse(&frame)?;
        if !self.greeted {
            return self.greeting(response).map(Some);
        }
        match &response {
            Response::Tagged(tag, _) => {
                let at =
                    self.in_flight.iter().position(|open| Some(*open) == *tag).ok_or(Fault::UnknownTag)?;
                self.in_flight.remove(at);
            }
            Response::Continuation(_) => {}
            _ => self.responses_left = self.responses_left.checked_sub(1).ok_or(Fault::TooManyResponses)?,
        }
        Ok(Some(response))
    }

    fn greeting(&mut self, response: Response) -> Result<Response, Fault> {
        let greets = matches!(
            response,
            Response::Status(Status { condition: Condition::Ok | Condition::PreAuth | Condition::Bye, .. })
        );
        self.greeted = true;
        if greets { Ok(response) } else { Err(Fault::NoGreeting) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session() -> Session {
        Session::greeted(&Limits { responses_max: 3, ..Limits::default() })
    }

    fn all(session: &mut Session, bytes: &[u8]) -> Result<usize, Fault> {
        session.framer.feed(bytes);
        let mut count = 0;
        while session.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn only_the_tags_in_flight_are_answered() {
        let mut session = session();
        let tag = session.open(Allowance::plain(&Limits::default()));
        assert_eq!(tag, 1);
        assert_eq!(all(&mut session, b"a1 OK\r\n"), Ok(1));
        assert_eq!(all(&mut session, b"a1 OK\r\n"), Err(Fault::UnknownTag));
    }

    #[test]
    fn a_stale_refusal_is_not_the_answer_to_a_later_command() {
        let mut session = session();
        session.open(Allowance::plain(&Limits::default()));
        assert_eq!(all(&mut session, b"a0 NO LOGIN failed\r\n"), Err(Fault::UnknownTag));
    }

    #[test]
    fn endless_answers_end() {
        let mut session = session();
        session.open(Allowance::plain(&Limits::default()));
        assert_eq!(all(&mut session, &b"* 1 EXISTS\r\n".repeat(4)), Err(Fault::TooManyResponses));
    }

    #[test]
    fn the_first_line_is_a_greeting() {
        for (line, greets) in [
            ("* OK\r\n", true),
            ("* PREAUTH\r\n", true),
            ("* BYE\r\n", true),
            ("+OK\r\n", false),
            ("a1 OK\r\n", false),
            ("\r\n", false),
        ] {
            let mut session = Session::new(&Limits::default());
            assert_eq!(all(&mut session, line.as_bytes()).is_ok(), greets, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_responses_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let mut session = Session::new(&Limits::default());
            session.framer.feed(b"* OK\r\n");
            let _ = all(&mut session, &bytes);
        }
    }
}
