//! What was measured, a row a figure: ours, the peer's, their ratio and the target.
//!
//! Not here: measuring.

use std::fmt::{self, Display, Formatter};

/// What a figure has to be.
#[derive(Clone, Copy)]
pub enum Target {
    None,
    AtLeast(f64),
    AtMost(f64),
    /// Ours divided by the peer's.
    RatioAtLeast(f64),
}

struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    peer: Option<(&'static str, f64)>,
    target: Target,
}

/// Rows in the order they were measured.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds a figure, and shows it at once: a whole run takes many minutes.
    pub fn add(&mut self, what: impl Into<String>, unit: &'static str, ours: f64, target: Target) {
        self.push(Row { what: what.into(), unit, ours, peer: None, target });
    }

    /// The same beside a peer's.
    pub fn compare(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        (ours, peer): (f64, Option<(&'static str, f64)>),
        target: Target,
    ) {
        self.push(Row { what: what.into(), unit, ours, peer, target });
    }

    fn push(&mut self, row: Row) {
        eprintln!("{row}");
        self.0.push(row);
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.peer.map(|(_, peer)| self.ours / peer)
    }

    fn met(&self) -> &'static str {
        let met = match self.target {
            Target::None => return "",
            Target::AtLeast(least) => self.ours >= least,
            Target::AtMost(most) => self.ours <= most,
            Target::RatioAtLeast(least) => self.ratio().is_some_and(|ratio| ratio >= least),
        };
        if met { "met" } else { "MISSED" }
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let peer = self.peer.map(|(name, value)| format!("{} {name}", figure(value))).unwrap_or_default();
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2} x")).unwrap_or_default();
        let target = match self.target {
            Target::None => String::new(),
            Target::AtLeast(least) => format!(">= {least}"),
            Target::AtMost(most) => format!("<= {most}"),
            Target::RatioAtLeast(least) => format!(">= {least} x"),
        };
        let Self { what, unit, ours, .. } = self;
        let ours = figure(*ours);
        write!(f, "{what:<64} {unit:<10} {ours:>10} {peer:>18} {ratio:>9} {target:>9} {}", self.met())
    }
}

/// Three digits that count.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<64} {:<10} {:>10} {:>18} {:>9} {:>9}",
            "what", "unit", "mailweave", "peer", "ratio", "target"
        )?;
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
