//! Chooses which parts of a message are its own text, and joins them.
//!
//! Not here: what to show of that text (`sanitise`, `reply`). Every part not chosen here is an attachment.

use super::{
    message::filename,
    part::{Part, Parts},
    sanitise::{escape_text, html_to_text},
};

/// Alternatives for other renderers, which nobody wants to see as attachments.
const OTHER_ALTERNATIVES: [&str; 4] =
    ["text/x-amp-html", "text/watch-html", "text/enriched", "text/richtext"];

/// The text of a message and where it came from.
#[derive(Debug, Default)]
pub(super) struct Readable {
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
    /// The plain text that stands first, though it be but blanks or below HTML.
    pub(super) first_plain: Option<String>,
    /// Text and HTML of the first body alone.
    pub(super) first_text: Option<String>,
    pub(super) first_html: Option<String>,
    /// Positions of the parts used, or rightly left out.
    pub(super) parts: Vec<usize>,
}

/// One body: a single part, or the members of one multipart/alternative. Apple Mail and mailing lists send several, with
/// attachments between them.
#[derive(Debug, Default)]
struct Body {
    alternative: Option<usize>,
    text: Option<String>,
    html: Option<String>,
}

impl Readable {
    pub(super) fn of(parts: &Parts<'_>) -> Self {
        let mut readable = Self::default();
        let mut bodies: Vec<Body> = Vec::new();
        for (index, part) in parts.leaves() {
            let alternative = enclosing_alternative(parts, part);
            let essence = part.content_type.essence();
            if alternative.is_some() && OTHER_ALTERNATIVES.contains(&essence) {
                readable.parts.push(index);
            } else if is_body(part) {
                readable.parts.push(index);
                let text = part.text();
                if !text.is_empty() && text.trim().is_empty() && essence == "text/plain" {
                    readable.first_plain.get_or_insert_default();
                }
                if !text.trim().is_empty() {
                    body_for(&mut bodies, alternative).add(essence == "text/html", &text);
                }
            }
        }
        readable.join(&bodies);
        readable
    }

    fn join(&mut self, bodies: &[Body]) {
        let has_text = bodies.iter().any(|body| body.text.is_some());
        let has_html = bodies.iter().any(|body| body.html.is_some());
        let text = |body: &Body| {
            body.text.clone().or_else(|| body.html.as_deref().map(html_to_text)).unwrap_or_default()
        };
        let html = |body: &Body| {
            body.html.clone().or_else(|| body.text.as_deref().map(escape_text)).unwrap_or_default()
        };
        self.text = has_text.then(|| bodies.iter().map(text).collect::<Vec<_>>().join("\n"));
        self.html = has_html.then(|| bodies.iter().map(html).collect::<Vec<_>>().join("\n"));
        self.first_plain = bodies.iter().find_map(|body| body.text.clone()).or(self.first_plain.take());
        if let Some(first) = bodies.first() {
            (self.first_text, self.first_html) = (first.text.clone(), first.html.clone());
        }
    }
}

impl Body {
    fn add(&mut self, is_html: bool, content: &str) {
        let slot = if is_html { &mut self.html } else { &mut self.text };
        match slot {
            Some(text) => {
                text.push('\n');
                text.push_str(content);
            }
            None => *slot = Some(content.to_owned()),
        }
    }
}

fn body_for(bodies: &mut Vec<Body>, alternative: Option<usize>) -> &mut Body {
    let joins = alternative.is_some() && bodies.last().is_some_and(|body| body.alternative == alternative);
    if !joins {
        bodies.push(Body { alternative, ..Body::default() });
    }
    bodies.last_mut().expect("a body was just pushed or was there")
}

/// Plain text or HTML that its sender did not mark as a file. A message that is one part is its text even with a name.
fn is_body(part: &Part<'_>) -> bool {
    let is_text = matches!(part.content_type.essence(), "text/plain" | "text/html");
    let is_named = || part.parent.is_some() && filename(part).is_some();
    is_text && part.disposition.essence() != "attachment" && !is_named()
}

/// The multipart/alternative in which a part lies, at whatever depth.
pub(super) fn enclosing_alternative(parts: &Parts<'_>, part: &Part<'_>) -> Option<usize> {
    let mut parent = part.parent;
    while let Some(index) = parent {
        let container = parts.list.get(index)?;
        if container.content_type.essence() == "multipart/alternative" {
            return Some(index);
        }
        parent = container.parent;
    }
    None
}
