//! What the API refuses, as a reader at a terminal wants it told.
//!
//! Not here: asking it (`client`).

use std::fmt;

use serde_json::Value;

/// A problem the API answered with (RFC 9457).
#[derive(Debug, thiserror::Error)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) problem: Value,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let member =
            |name: &str| self.problem.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let title = member("title").unwrap_or("the gateway refused this");
        write!(f, "{title} ({}", self.status)?;
        member("code").map_or(Ok(()), |code| write!(f, ", {code}"))?;
        f.write_str(")")?;
        for (name, label) in
            [("detail", ""), ("param", "at: "), ("advice", "what to do: "), ("request_id", "request: ")]
        {
            member(name).map_or(Ok(()), |text| write!(f, "\n  {label}{text}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_the_way_out() {
        let problem = serde_json::json!({ "title": "Unprocessable", "code": "invalid", "detail": "No.", "param": "email",
            "advice": "Correct it.", "request_id": "r1" });
        let told = Refused { status: 422, problem }.to_string();
        let expect =
            "Unprocessable (422, invalid)\n  No.\n  at: email\n  what to do: Correct it.\n  request: r1";
        assert_eq!(told, expect);
        assert_eq!(
            Refused { status: 502, problem: Value::Null }.to_string(),
            "the gateway refused this (502)"
        );
    }
}
